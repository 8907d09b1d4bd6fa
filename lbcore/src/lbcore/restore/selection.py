"""What is to be restored, where it goes, and what is in the way there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lbcore.beneath import Root
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import Row
from lbcore.errors import UsageError
from lbcore.points import Place, find_place

_COARSE_NS = 2 * 10**9
"""Some filesystems keep times no finer than that."""


class Chosen(NamedTuple):
    """One PATH of the command."""

    row: Row
    path: bytes
    """Where it was, relative to the job's root."""
    to: bytes
    """Where it goes, relative to the destination; ``b""`` is the destination itself."""


def choose(catalog: Catalog, run: int, paths: Sequence[bytes]) -> list[Chosen]:
    """Look up what is to be restored: ``b""`` becomes the destination itself, anything else goes below it.

    :raises UsageError: when something was not there, or two would get one name.
    """
    places = [find_place(catalog, run, path) for path in dict.fromkeys(paths)]
    for whole in places:
        for part in places:
            if whole is not part and (not whole.path or part.path.startswith(whole.path + b"/")):
                names = [os.fsdecode(place.path or b".") for place in (part, whole)]
                raise UsageError(f"{names[0]} is a part of {names[1]}: give one of them")
    chosen = [Chosen(place.row, place.path, _base(place)) for place in places]
    taken: dict[bytes, bytes] = {}
    for one in chosen:
        if one.to in taken:
            both = f"{os.fsdecode(taken[one.to])} and {os.fsdecode(one.path)}"
            raise UsageError(f"{both} would both become {os.fsdecode(one.to)}: restore them to different folders")
        taken[one.to] = one.path
    for one in chosen:
        if not one.to and not stat.S_ISDIR(one.row.mode):
            raise UsageError("the root of this job is not a directory")
    return chosen


def _base(place: Place) -> bytes:
    return place.path.rpartition(b"/")[2]


class Conflict(NamedTuple):
    """Something in the destination that is in the way."""

    path: bytes
    what: str


def alike(row: Row, there: os.stat_result) -> bool:
    """Whether what is there may be what an earlier restore made of ``row``: of its kind, and of its size and time."""
    if stat.S_IFMT(there.st_mode) != stat.S_IFMT(row.mode):
        return False
    if stat.S_ISREG(row.mode):
        return there.st_size == row.size and abs(there.st_mtime_ns - row.mtime_ns) < _COARSE_NS
    return there.st_rdev == row.rdev


def conflicts(
    catalog: Catalog, run: int, chosen: Sequence[Chosen], destination: Root, *, overwrite: bool, resume: bool
) -> Iterator[Conflict]:
    """What is there already and would have to go. Looks only at what is there: an empty folder costs nothing.

    :param resume: what an earlier restore may have made is in nobody's way.
    """
    waiting = [(one.row, one.to) for one in chosen]
    while waiting:
        row, path = waiting.pop()
        there = _status(destination, path)
        if there is None:
            continue
        if stat.S_ISDIR(there.st_mode) != stat.S_ISDIR(row.mode):
            if stat.S_ISDIR(there.st_mode):
                yield Conflict(path, "is a directory here, and none in the backup; move it away")
            elif not overwrite:
                yield Conflict(path, "exists, and was a directory")
        elif not stat.S_ISDIR(row.mode):
            if not overwrite and not (resume and alike(row, there)):
                yield Conflict(path, "exists")
        else:
            for name in _names(destination, path):
                obj = catalog.names.child_at(row.obj, name, run)
                child = None if obj is None else catalog.objects.at(obj, run)
                if child is not None:
                    waiting.append((child, path + b"/" + name if path else name))


def _status(root: Root, path: bytes) -> os.stat_result | None:
    if not path:
        return os.fstat(root.fd)
    try:
        parent, name = root.parent(path)
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _names(root: Root, path: bytes) -> Iterator[bytes]:
    fd = root.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                yield os.fsencode(entry.name)
    finally:
        os.close(fd)
