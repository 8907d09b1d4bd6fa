"""All versions of what had a path: across renames of the object itself and of every directory above it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import ROOT, Row
from lbcore.catalog.past import Past

_OPEN_END = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """An object over the points in time in which nothing about it changed."""

    first: int
    """A committed run."""
    last: int
    """A committed run; the newest of all when it is so to this day."""
    row: Row | None
    """None: the object is gone."""
    paths: tuple[bytes, ...]
    what: tuple[str, ...]
    """What changed since the version before: ``new``, ``removed``, ``renamed``, ``linked`` and ``unlinked`` (a name
    more or less), ``content``, ``attributes``."""


def changes(before: Row, after: Row) -> tuple[str, ...]:
    """What of an object differs between two states that a point in time shows: ``content``, ``attributes``."""
    content = (before.digest, before.link_target, before.rdev) != (after.digest, after.link_target, after.rdev)
    # New content always comes with a new time: that alone is not worth a word.
    time = before.mtime_ns != after.mtime_ns and not content
    others = (before.mode, before.uid, before.gid, before.extras) != (after.mode, after.uid, after.gid, after.extras)
    return (*(("content",) if content else ()), *(("attributes",) if time or others else ()))


def holders(catalog: Catalog, path: bytes) -> list[int]:
    """Every object that had ``path`` at some point in time, in the order in which they first had it."""
    past = Past(catalog.database)
    found = [(1, _OPEN_END, ROOT)]
    for name in path.split(b"/") if path else ():
        below = []
        for first, last, parent in found:
            for since, until, obj in past.holders(parent, name):
                start, end = max(first, since), min(last, _OPEN_END if until is None else until)
                if start <= end:
                    below.append((start, end, obj))
        found = below
    points = [run.run for run in catalog.runs.all() if run.state == "committed"]
    held = [obj for first, last, obj in sorted(found) if any(first <= point <= last for point in points)]
    return list(dict.fromkeys(held))


def versions(catalog: Catalog, obj: int) -> list[Version]:
    """All versions of an object, oldest first."""
    states = [(first, _OPEN_END if last is None else last, row) for first, last, row in catalog.objects.versions(obj)]
    places = list(_places(catalog, obj))
    points = [run.run for run in catalog.runs.all() if run.state == "committed"]
    borders = sorted({border for first, last, _ in (*states, *places) for border in (first, last + 1)})
    found: list[Version] = []
    for start, end in itertools.pairwise(borders):
        shown = _first_and_last(points, start, end - 1)
        if shown is None:
            continue
        row = next((row for first, last, row in states if first <= start <= last), None)
        paths = tuple(sorted(path for first, last, path in places if first <= start <= last))
        if row is not None or found:
            _append(found, shown, row, paths if row is not None else ())
    if found and found[-1].row is not None and found[-1].last < points[-1]:
        gone = next(point for point in points if point > found[-1].last)
        _append(found, (gone, points[-1]), None, ())
    return found


def _append(found: list[Version], shown: tuple[int, int], row: Row | None, paths: tuple[bytes, ...]) -> None:
    before = found[-1] if found else None
    if before is None or before.row is None:
        if row is None:
            return
        what: tuple[str, ...] = ("new",)
    elif row is None:
        what = ("removed",)
    else:
        what = (*_renamed(before.paths, paths), *changes(before.row, row))
    if before is not None and not what:
        found[-1] = Version(first=before.first, last=shown[1], row=row, paths=paths, what=before.what)
    else:
        found.append(Version(first=shown[0], last=shown[1], row=row, paths=paths, what=what))


def _renamed(before: tuple[bytes, ...], after: tuple[bytes, ...]) -> tuple[str, ...]:
    if before == after:
        return ()
    if len(before) == len(after):
        return ("renamed",)
    return ("linked",) if len(before) < len(after) else ("unlinked",)


def _first_and_last(points: Sequence[int], start: int, end: int) -> tuple[int, int] | None:
    within = [point for point in points if start <= point <= end]
    return (within[0], within[-1]) if within else None


def _places(catalog: Catalog, obj: int) -> Iterator[tuple[int, int, bytes]]:
    """Every path an object had, with the first and last run; a directory above that was renamed makes a new path."""
    waiting = [(1, _OPEN_END, obj, b"")]
    while waiting:
        first, last, at, path = waiting.pop()
        if at == ROOT:
            yield first, last, path
            continue
        for since, until, parent, name in catalog.names.periods(at):
            start, end = max(first, since), min(last, _OPEN_END if until is None else until)
            if start <= end:
                waiting.append((start, end, parent, name + b"/" + path if path else name))
