"""A click group whose commands are imported when they are called: ``lb --help`` reads only a table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from lbcore.cli.context import Lb
from lbcore.errors import UsageError

if TYPE_CHECKING:
    from lbcore.plugins.types import CommandPlugin


class LazyGroup(click.Group):
    """A group with a table: name of the command -> ("module:function", line of help); and the commands of plugins."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order of use; then those of plugins.

        :raises UsageError: when plugins clash.
        """
        return [*self.table, *_of_plugins(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name in self.table:
            module, _, function = self.table[cmd_name][0].partition(":")
            command = getattr(importlib.import_module(module), function)
        elif cmd_name in _of_plugins(ctx):
            command = _of_plugins(ctx)[cmd_name].create()
        else:
            return None
        if not isinstance(command, click.Command):
            raise UsageError(f"the plugin that provides '{cmd_name}' gave no click command for it: {command!r}")
        _add_config_option(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a wrong word is answered with the closest right one."""
        if args[0] not in self.table and not args[0].startswith("-") and args[0] not in _of_plugins(ctx):
            ctx.fail(self._unknown(ctx, args[0]))
        return super().resolve_command(ctx, args)

    def _unknown(self, ctx: click.Context, word: str) -> str:
        from lbcore.config.options import suggestion  # noqa: PLC0415 - only for this message
        from lbcore.plugins.listing import FIRST_PARTY  # noqa: PLC0415

        if ("command", word) in FIRST_PARTY:
            return str(ctx.ensure_object(Lb).plugins.missing("command", word))
        return f"no command '{word}'; {suggestion(word, self.list_commands(ctx))}"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's lines of help. Loading plugins for theirs would take longer than all the rest."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])
        formatter.write_paragraph()
        formatter.write_text("Plugins may add commands, such as 'lb lustre': 'lb plugins' lists them.")


def _of_plugins(ctx: click.Context) -> dict[str, CommandPlugin]:
    """By name, sorted."""
    return dict(sorted(ctx.ensure_object(Lb).plugins.commands().items()))


def _set_config_file(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    lb = ctx.find_object(Lb)
    if value is not None and lb is not None:
        lb.config_file = value


def _add_config_option(command: click.Command) -> None:
    """Let ``-c FILE`` be given after the command's name too."""
    for part in (command, *getattr(command, "commands", {}).values()):
        if not any("--config" in parameter.opts for parameter in part.params):
            option = click.Option(
                ["-c", "--config"],
                metavar="FILE",
                expose_value=False,
                callback=_set_config_file,
                help="Configuration file.",
            )
            part.params.append(option)
