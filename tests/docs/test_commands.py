"""``docs/commands.md`` describes the commands and options that ``lb`` has: all of them, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

from lbcore.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "commands.md"

_HEADING = re.compile(r"^(#{2,4}) `(lb[^`]*)`", re.MULTILINE)
_ROW = re.compile(r"^\| (`.*?) \|", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, with the words that call it."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from walk(below, (*path, name))


EVERYWHERE = {"-h", "--help", "-c", "--config"}
"""Accepted after every command; described once, at ``lb``."""


def options(command: click.Command) -> set[str]:
    """Every spelling of every option that is the command's own."""
    return {
        spelling
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for spelling in (*parameter.opts, *parameter.secondary_opts)
    } - EVERYWHERE


@cache
def sections() -> dict[str, str]:
    """The text below each command's heading, up to the next command."""
    text = PAGE.read_text(encoding="utf-8")
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return {heading.group(2): text[heading.end() : end] for heading, end in zip(headings, ends, strict=True)}


def described(section: str) -> set[str]:
    """The options in the first column of a section's tables."""
    return {option for row in _ROW.findall(section) for option in _OPTION.findall(row)}


def test_every_command_has_a_heading_and_every_heading_a_command() -> None:
    assert set(sections()) == {path for path, _ in walk(main, ("lb",))}


def test_every_option_is_described_and_none_is_invented() -> None:
    differences = {}
    for path, command in walk(main, ("lb",)):
        words, own = described(sections().get(path, "")) - EVERYWHERE, options(command)
        if words != own:
            differences[path] = {"not described": own - words, "not there": words - own}
    assert differences == {}


def test_the_options_of_every_command_are_described_once() -> None:
    assert described(sections()["lb"]) >= EVERYWHERE
