"""What a user calls a point in time, and a path in it: which run, which object."""

from __future__ import annotations

import datetime
import os
import re
import stat
from typing import NamedTuple

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import ROOT, Row
from lbcore.catalog.runs import Run
from lbcore.errors import UsageError

LATEST = "latest"
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_RANGES_SHOWN = 12


class Place(NamedTuple):
    """An object at a path of a point in time."""

    path: bytes
    """Relative to the job's root, which is ``b""``."""
    row: Row


def find_point(catalog: Catalog, text: str) -> Run:
    """The point in time that ``text`` means: ``latest``, the number of a run, or a date or time.

    :raises UsageError: when there is none such; the message says what there is.
    """
    if text == LATEST:
        run = catalog.runs.last_committed()
        if run is None:
            raise UsageError("there is no point in time yet: no run of this job is complete")
        return run
    if text.isascii() and text.isdigit():
        return _by_number(catalog, int(text))
    time_ns = parse_time(text)
    run = catalog.runs.at_time(time_ns)
    if run is None:
        raise UsageError(f"there is no point in time as old as {text}; {available(catalog)}")
    return run


def _by_number(catalog: Catalog, number: int) -> Run:
    run = catalog.runs.get(number) if number < 1 << 63 else None
    if run is None:
        raise UsageError(f"there is no run {number}; {available(catalog)}")
    if run.state != "committed":
        raise UsageError(f"run {number} is no point in time, its state is '{run.state}'; {available(catalog)}")
    return run


def available(catalog: Catalog) -> str:
    """The points in time that there are, as the end of a message."""
    points = [run for run in catalog.runs.all() if run.state == "committed"]
    if not points:
        return "no run of this job is complete yet"
    ranges: list[tuple[int, int]] = []
    for run in points:
        if ranges and ranges[-1][1] == run.run - 1:
            ranges[-1] = (ranges[-1][0], run.run)
        else:
            ranges.append((run.run, run.run))
    numbers = [str(first) if first == last else f"{first} to {last}" for first, last in ranges]
    if len(numbers) > _RANGES_SHOWN:
        numbers = [numbers[0], "…", *numbers[1 - _RANGES_SHOWN :]]
    oldest, newest = (local_time(run.view_to_ns or run.started_ns) for run in (points[0], points[-1]))
    return f"there are runs {', '.join(numbers)}, from {oldest} to {newest} ('lb runs' lists them)"


def local_time(time_ns: int) -> str:
    """A time as people here read it; ``parse_time`` of it is not before it."""
    return datetime.datetime.fromtimestamp(time_ns // 10**9).strftime("%Y-%m-%d %H:%M:%S")


def parse_time(text: str) -> int:
    """A date or time, local unless it says otherwise, in ns since 1970: the last moment that it can mean.

    So a date is the end of that day, a minute its last instant, and an hour that comes twice its second time.

    :raises UsageError: when it is none.
    """
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError("not understood")
        return _last_moment(match)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"'{text}' is no point in time ({error}): give the number of a run, '{LATEST}', or a time such as "
            "2026-03-01 or 2026-03-01T18:30"
        ) from error


def _last_moment(match: re.Match[str]) -> int:
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    clock = (23, 59, 59) if hour is None else (int(hour), int(minute), 59 if second is None else int(second))
    time = datetime.datetime(int(year), int(month), int(day), *clock)
    digits = (fraction or "").ljust(9, "9")
    if zone is None:
        seconds = max(time.replace(fold=fold).timestamp() for fold in (0, 1))
    else:
        seconds = (time - datetime.timedelta(minutes=_offset(zone))).replace(tzinfo=datetime.timezone.utc).timestamp()
    return int(seconds) * 10**9 + int(digits)


def _offset(zone: str) -> int:
    """Minutes east of Greenwich."""
    if zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return -minutes if zone[0] == "-" else minutes


def inside_path(path: bytes, source: bytes) -> bytes:
    """A path as a user gives it, relative to the job's root: ``b""`` is the root itself.

    :raises UsageError: for ``..``, for nothing, and for an absolute path that does not lie below ``source``.
    """
    if not path:
        raise UsageError("a path is empty; '.' is the whole tree")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UsageError(f"'..' is not allowed in a path: {os.fsdecode(path)}")
    if path.startswith(b"/"):
        above = [part for part in source.split(b"/") if part]
        if parts[: len(above)] != above:
            raise UsageError(f"{os.fsdecode(path)} does not lie below the job's source {os.fsdecode(source)}")
        parts = parts[len(above) :]
    return b"/".join(parts)


def find_place(catalog: Catalog, run: int, path: bytes) -> Place:
    """The object at ``path`` (relative to the job's root) at ``run``. No symbolic link is followed.

    :raises UsageError: when nothing was there.
    """
    obj, done = ROOT, b""
    for name in path.split(b"/") if path else ():
        child = catalog.names.child_at(obj, name, run)
        if child is None:
            raise UsageError(_missing(catalog, run, path, obj, done))
        obj, done = child, done + b"/" + name if done else name
    row = catalog.objects.at(obj, run)
    if row is None:
        raise UsageError(f"run {run} holds nothing")
    return Place(path, row)


def _missing(catalog: Catalog, run: int, path: bytes, obj: int, done: bytes) -> str:
    said = f"{os.fsdecode(path)} is not in the backup at run {run}"
    row = catalog.objects.at(obj, run)
    if row is not None and stat.S_ISLNK(row.mode):
        return f"{said}: {os.fsdecode(done)} is a symbolic link to {os.fsdecode(row.link_target or b'')}"
    if row is not None and not stat.S_ISDIR(row.mode):
        return f"{said}: {os.fsdecode(done)} is not a directory"
    return f"{said} ('lb history' tells when it was, 'lb ls' what else there is)"
