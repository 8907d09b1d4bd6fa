"""What changed between two points in time. The cost grows with what changed, not with what there is."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.names import Paths
from lbcore.catalog.objects import ROOT, Row
from lbcore.history import changes


class Difference(NamedTuple):
    """One path at which two points in time differ."""

    path: bytes
    """Relative to the job's root; of a removed object and name the old one."""
    what: tuple[str, ...]
    """``new``, ``removed``, ``renamed``, ``linked``, ``unlinked`` (a name more or less); ``content``, ``attributes``.
    """
    old_path: bytes | None
    """Where a renamed object was."""
    mode: int
    """Of the object: its kind."""


def differences(catalog: Catalog, older: int, newer: int) -> Iterator[Difference]:
    """What has to be done to the state of run ``older`` to make it the state of run ``newer``, sorted by path."""
    compare = _Comparison(catalog, older, newer)
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as sorter:  # a temporary file
        sorter.execute("CREATE TABLE found (path BLOB, what TEXT, old_path BLOB, mode INTEGER)")
        sorter.execute("BEGIN")
        for obj in catalog.objects.changed_between(min(older, newer), max(older, newer)):
            for found in compare.object(obj):
                values = (found.path, " ".join(found.what), found.old_path, found.mode)
                sorter.execute("INSERT INTO found VALUES (?, ?, ?, ?)", values)
        for path, what, old_path, mode in sorter.execute("SELECT * FROM found ORDER BY path, what DESC"):
            yield Difference(path, tuple(what.split()), old_path, mode)


class _Comparison:
    """Compares one object at two points in time."""

    def __init__(self, catalog: Catalog, older: int, newer: int) -> None:
        self._catalog = catalog
        self._older, self._newer = older, newer
        self._paths = {run: Paths(catalog.names, run) for run in (older, newer)}

    def object(self, obj: int) -> Iterator[Difference]:
        """Every path at which it differs."""
        before, after = (self._catalog.objects.at(obj, run) for run in (self._older, self._newer))
        row = after or before
        if row is None:
            return
        changed = changes(before, after) if before is not None and after is not None else ()
        if obj == ROOT:
            if changed:
                yield Difference(b"", changed, None, row.mode)
            return
        had = set(self._catalog.names.of_at(obj, self._older)) if before is not None else set()
        has = set(self._catalog.names.of_at(obj, self._newer)) if after is not None else set()
        yield from self._names(row, sorted(had - has), sorted(has - had), (before, after), changed)
        for name in sorted(had & has):
            if changed:
                yield Difference(self._path(self._newer, name), changed, None, row.mode)

    def _names(
        self,
        row: Row,
        lost: list[tuple[int, bytes]],
        gained: list[tuple[int, bytes]],
        states: tuple[Row | None, Row | None],
        changed: tuple[str, ...],
    ) -> Iterator[Difference]:
        while lost and gained:
            old, new = self._path(self._older, lost.pop(0)), self._path(self._newer, gained.pop(0))
            yield Difference(new, ("renamed", *changed), old, row.mode)
        for name in gained:
            what = ("new",) if states[0] is None else ("linked", *changed)
            yield Difference(self._path(self._newer, name), what, None, row.mode)
        for name in lost:
            what = ("removed",) if states[1] is None else ("unlinked",)
            yield Difference(self._path(self._older, name), what, None, row.mode)

    def _path(self, run: int, name: tuple[int, bytes]) -> bytes:
        parent, base = name
        directory = self._paths[run].directory(parent)
        assert directory is not None, f"directory {parent} has no name at run {run}"
        return directory + b"/" + base if directory else base
