"""A catalog of many objects: how large it is, how fast it is filled, what a commit costs."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import time
from typing import Any

import xxhash

from bench.report import Result, say
from bench.workspace import Workspace
from lbcore import runfile
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.database import BATCH_ROWS
from lbcore.catalog.steps import What
from lbcore.target import Target

COMMITS = 5


def fill(path: str, objects: int) -> None:
    """Enter ``objects`` synthetic objects into a new catalog at ``path``, as a first run does."""
    with contextlib.closing(Catalog.open(os.fsencode(path))) as catalog:
        with catalog.database.transaction():
            run = catalog.runs.begin(time.time_ns())
        catalog.begin_first_load()
        for start in range(0, objects, BATCH_ROWS):
            numbers = range(start + 1, min(objects, start + BATCH_ROWS) + 1)
            with catalog.database.transaction():
                catalog.plan.add((obj, *_columns(obj, 0), What.NEW | What.DATA) for obj in numbers)
                catalog.plan.gain_names(_name(obj) for obj in numbers)
            with catalog.database.transaction():
                catalog.plan.set_batch(numbers, b"".join(_digest(obj, 0) for obj in numbers))
                catalog.plan.mark_brought(run)
                catalog.names.gain_batch(run)
                catalog.objects.add_batch(run)
        catalog.end_first_load()
        _commit(catalog, path, run)


def commit_changes(path: str, objects: int, changes: int, run: int) -> None:
    """Commit run number ``run``, in which ``changes`` of the ``objects``, far apart, changed, as ``lb run`` does."""
    with contextlib.closing(Catalog.open(os.fsencode(path))) as catalog:
        with catalog.database.transaction():
            begun = catalog.runs.begin(time.time_ns())
        assert begun == run
        numbers = range(1 + run % (objects // changes), objects + 1, objects // changes)
        with catalog.database.transaction():
            for obj in numbers:
                catalog.plan.put((obj, *_columns(obj, run), What.ATTRIBUTES | What.DATA))
        with catalog.database.transaction():
            catalog.plan.set_batch(numbers, b"".join(_digest(obj, run) for obj in numbers))
            catalog.plan.mark_brought(run)
            catalog.objects.put_batch(run)
        _commit(catalog, path, run)


def _columns(obj: int, run: int) -> tuple[Any, ...]:
    """A file of which nothing but its times depends on the run; see ``schema.OBJECT_COLUMNS``."""
    time_ns = 1_700_000_000_000_000_000 + obj + run
    object_id = obj.to_bytes(8, "big") + xxhash.xxh3_64_digest(b"%d" % obj)
    return object_id, 0o100644, 1000, 1000, obj % 100_000, time_ns, time_ns, 0, 0, None, None, None, None


def _name(obj: int) -> tuple[int, bytes, int]:
    """A hundred files a directory."""
    return obj // 100 + 1, b"file-%08d.dat" % obj, obj


def _digest(obj: int, run: int) -> bytes:
    return xxhash.xxh3_128_digest(b"%d %d" % (obj, run))


def _commit(catalog: Catalog, path: str, run: int) -> None:
    with contextlib.closing(Target(os.fsencode(path) + b".target")) as target:
        runfile.write(catalog, target, run)
    with catalog.database.transaction():
        catalog.plan.clear()
        catalog.runs.update(run, state="committed", finished_ns=time.time_ns())


def synthetic_catalog(workspace: Workspace) -> Result:
    """Fill catalogs of growing size, and commit the same number of changes to each."""
    rows = []
    commits: list[float] = []
    for objects in (workspace.catalog_objects // 10, workspace.catalog_objects // 2, workspace.catalog_objects):
        folder = workspace.folder("catalog")
        path = os.path.join(folder, "job.db")
        say(f"  filling a catalog with {objects:,} objects")
        started = time.perf_counter()
        fill(path, objects)
        filled = time.perf_counter() - started
        size = _bytes(folder)
        times = []
        for turn in range(COMMITS):
            started = time.perf_counter()
            commit_changes(path, objects, workspace.catalog_changes, turn + 2)
            times.append(time.perf_counter() - started)
        commits.append(sorted(times)[COMMITS // 2])
        rows.append(
            (
                f"{objects:,}",
                f"{size / objects:.0f}",
                f"{objects / filled:,.0f}",
                f"{commits[-1]:.2f}",
            )
        )
        shutil.rmtree(folder)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Result(
        name="catalog",
        title=f"A catalog of {workspace.catalog_objects:,} objects",
        header=(
            "objects",
            "bytes per object",
            "objects per second, first insert",
            f"seconds per commit of {workspace.catalog_changes:,} changes (median of {COMMITS})",
        ),
        rows=rows,
        notes=[
            f"twice the objects, time of a commit: {commits[2] / commits[1]:.2f}; ten times the objects: "
            f"{commits[2] / commits[0]:.2f} (1 when it grows with the changes only).",
            f"peak memory of the process: {peak_bytes / 1e6:.0f} MB.",
        ],
    )


def _bytes(folder: str) -> int:
    """What the files of a catalog take on disk, its log included."""
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
