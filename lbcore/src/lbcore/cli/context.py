"""What commands share: the plugins and the configuration, made when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbcore.config.job import Config, JobConfig
    from lbcore.plugins.manager import Plugins


class Lb:
    """One invocation of ``lb``; commands get it by ``@click.pass_obj``."""

    def __init__(self, *, plugins: Plugins | None = None, config: Config | None = None) -> None:
        self.config_file: str | None = None
        """The argument of ``-c``."""
        self.disabled: tuple[str, ...] = ()
        """The arguments of ``--disable``."""
        self.debug = False
        self._plugins = plugins
        self._config = config

    @property
    def plugins(self) -> Plugins:
        """The plugins, loaded at the first use.

        :raises UsageError: when two of them clash, or one with lb itself.
        """
        if self._plugins is None:
            from lbcore.cli.table import COMMANDS  # noqa: PLC0415
            from lbcore.plugins.manager import Plugins  # noqa: PLC0415 - most of what is asked of lb needs no plugins

            self._plugins = Plugins(disabled=self.disabled, own_commands=COMMANDS)
        return self._plugins

    @property
    def config(self) -> Config:
        """The configuration, read at the first use. Jobs in ``config.broken`` do not stop the others.

        :raises UsageError: when there is none, or the file as a whole is wrong.
        """
        if self._config is None:
            from lbcore.config.loader import load_config  # noqa: PLC0415 - help must not wait for a file

            self._config = load_config(self.config_file, self.plugins)
        return self._config

    def job(self, name: str | None = None) -> JobConfig:
        """The job of that name; with None the only one there is.

        :raises UsageError: when there is no such job, when it is broken, or when several could be meant.
        """
        return self.config.job(name)

    def jobs(self, names: Sequence[str] = ()) -> list[JobConfig]:
        """The jobs of these names, each once; without names all of the file.

        :raises UsageError: when one of them does not exist or is broken.
        """
        if not names:
            self.config.check()
            return list(self.config.jobs.values())
        return [self.config.job(name) for name in dict.fromkeys(names)]
