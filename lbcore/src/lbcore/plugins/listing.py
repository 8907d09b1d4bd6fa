"""Who provides what: the rows of ``lb plugins``, and the messages about things that are not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from lbcore.errors import UsageError
from lbcore.plugins.types import Registration

FIRST_PARTY = {
    ("transfer", "rsync"): "lb-rsync",
    ("transfer", "filediff"): "lb-filediff",
    ("retention", "calendar"): "lb-retention",
    ("notifier", "email"): "lb-email",
    ("snapshotter", "lustre"): "lb-lustre",
    ("detector", "changelog"): "lb-lustre",
    ("command", "lustre"): "lb-lustre",
}
"""(kind, name) of the things that lb's own distributions provide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plugin:
    """An entry point, or an object that was registered directly."""

    name: str
    """Name of the entry point: the word for ``--disable``."""
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Provided:
    """A thing and the plugin that registered it."""

    kind: str
    registration: Registration
    plugin: Plugin


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A line of ``lb plugins``."""

    name: str
    """Of the thing; of the plugin, where it provides none."""
    kind: str
    """``transfer`` and so on, ``events`` for a plugin that listens, empty for one that is not loaded."""
    plugin: str
    distribution: str
    version: str
    state: str
    """``ok``, ``broken`` or ``disabled``."""
    error: str = ""
    """Why it is broken."""
    summary: str = ""


def missing_error(
    kind: str,
    name: str,
    available: Iterable[str],
    broken: Iterable[tuple[Plugin, str]],
    disabled: Iterable[Plugin],
) -> UsageError:
    """Why the thing ``name`` cannot be used, and what to do about it."""
    package = FIRST_PARTY.get((kind, name))
    for plugin, error in broken:
        if plugin.name == name or plugin.distribution == package:
            return UsageError(
                f"plugin '{plugin.name}' failed to load: {error} ({kind} '{name}' needs it, package {plugin})"
            )
    for plugin in disabled:
        if plugin.name == name or plugin.distribution == package:
            return UsageError(f"{kind} '{name}': plugin '{plugin.name}' is disabled by --disable")
    if package:
        return UsageError(f"{kind} '{name}' is not installed: install the package {package}")
    known = sorted(available)
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    others = ", ".join(f"'{plugin.name}' ({error})" for plugin, error in broken)
    tail = f"; plugins that failed to load: {others}" if others else ""
    return UsageError(f"no plugin provides a {kind} '{name}'; {guess}known: {', '.join(known) or 'none'}{tail}")
