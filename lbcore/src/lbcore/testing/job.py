"""A job in a folder of its own, for tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from click.testing import CliRunner, Result

from lbcore.beneath import Root
from lbcore.catalog.catalog import Catalog
from lbcore.cli.context import Lb
from lbcore.cli.main import main
from lbcore.config.build import build_job
from lbcore.config.job import Config, JobConfig
from lbcore.config.limits import MaxDelete
from lbcore.dryrun import dry_run
from lbcore.held import Held
from lbcore.keeping import find_keeping
from lbcore.plugins.manager import Plugins
from lbcore.progress import Progress
from lbcore.restore.restoring import Restoring
from lbcore.restore.selection import choose
from lbcore.run import JobRun, Options, Outcome, catalog_path
from lbcore.target import LB, TREE
from lbcore.testing.trees import compare_trees


class Job:
    """A source, a target, and the configuration between them."""

    def __init__(self, folder: bytes, *plugins: object, name: str = "job", **settings: Any) -> None:
        """Make ``folder`` with a ``source`` in it, unless they are there.

        :param plugins: modules or objects with hooks, besides what is installed.
        :param settings: keys of ``[job.NAME]``.
        :raises UsageError: when the configuration would be refused.
        """
        self.name = name
        self.source = os.path.join(folder, b"source")
        """Absolute path of the live tree."""
        self.target = os.path.join(folder, b"target")
        self.tree = os.path.join(self.target, TREE)
        """The mirror."""
        self.lb = os.path.join(self.target, LB)
        self.plugins = Plugins()
        for number, plugin in enumerate(plugins):
            self.plugins.register(plugin, f"test-{number}")
        os.makedirs(self.source, exist_ok=True)
        self._settings: dict[str, Any] = {}
        self.configure(**settings)

    @property
    def config(self) -> JobConfig:
        """The configuration as the core gets it."""
        return self._config

    def configure(self, **settings: Any) -> None:
        """Change keys of the configuration, to their defaults by None; the others stay as they are.

        :raises UsageError: when the configuration would be refused.
        """
        self._settings = {key: value for key, value in {**self._settings, **settings}.items() if value is not None}
        ends = {"source": os.fsdecode(self.source), "target": os.fsdecode(self.target)}
        self._config = build_job(self.name, ends | self._settings, f"test: job.{self.name}", self.plugins)

    def run(self, *, full: bool = False, max_delete: int | str | None = None) -> Outcome:
        """What ``lb run`` does. Nothing is raised: errors are in the outcome."""
        limit = None if max_delete is None else MaxDelete.parse(max_delete)
        return JobRun(self._config, self.plugins, Options(full=full, max_delete=limit), Progress()).run()

    def command(self, *arguments: str, typed: str = "") -> Result:
        """What a command of ``lb`` does where this job is the only one, and ``typed`` is its standard input."""
        config = Config(path="test", jobs={self.name: self._config})
        return CliRunner().invoke(main, list(arguments), input=typed, obj=Lb(plugins=self.plugins, config=config))

    def plan(self) -> dict[str, int]:
        """What ``lb run --dry-run`` does: how many objects a run would make, change and remove.

        :raises LbError: as a run would.
        """
        return dry_run(self._config, Progress(), lambda catalog, step: None).counts

    def restore(self, run: int, folder: bytes) -> None:
        """Restore the whole tree, as it was at run number ``run``, to ``folder``, which becomes its root.

        :raises AssertionError: when something could not be restored.
        """
        problems: list[tuple[bytes, str]] = []
        os.makedirs(folder, exist_ok=True)
        with (
            self.catalog() as catalog,
            contextlib.closing(Held(self.target, catalog)) as held,
            Root(folder) as destination,
        ):
            restoring = Restoring(
                catalog,
                run,
                held,
                destination,
                find_keeping(self._config.extras, folder),
                crew=None,
                overwrite=False,
                resume=False,
                report=lambda path, reason: problems.append((path, reason)),
                progress=Progress(),
            )
            restoring.restore(choose(catalog, run, [b""]))
        assert not problems, problems

    @contextlib.contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """The catalog, to be read.

        :raises CatalogError: when the job has not run yet.
        """
        with contextlib.closing(Catalog.open(catalog_path(self._config), read_only=True)) as catalog:
            yield catalog

    def differences(self) -> list[str]:
        """What is not the same in the source and in the mirror."""
        return compare_trees(self.source, self.tree)

    def log(self, run: int) -> str:
        """The log file of a run."""
        with open(os.path.join(self.lb, b"log", b"%d.log" % run), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
