"""A click group whose commands are imported when they are called: ``lb --help`` reads only a table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from lbcore.cli.context import Lb


class LazyGroup(click.Group):
    """A group with a table: name of the command -> ("module:function", line of help)."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order of use."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in self.table:
            return None
        module, _, function = self.table[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), function)
        assert isinstance(command, click.Command)
        _add_config_option(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a wrong word is answered with the closest right one."""
        if args[0] not in self.table and not args[0].startswith("-"):
            from lbcore.config.options import suggestion  # noqa: PLC0415 - only for this message

            ctx.fail(f"no command '{args[0]}'; {suggestion(args[0], list(self.table))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's lines of help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])


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
