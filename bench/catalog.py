"""A catalog of many objects: how large it is, how fast it is filled, what a commit costs."""

from __future__ import annotations

import os
import resource
import shutil
import time

from bench.measure import NotMeasured
from bench.report import Result, say
from bench.workspace import Workspace

COMMITS = 5


def fill(path: str, objects: int) -> None:
    """Enter ``objects`` synthetic objects into a new catalog at ``path``, as a first run does.

    To be written with ``lbcore.catalog``: the rows of a first run with digests and names, the indexes,
    the commit.
    """
    raise NotMeasured(f"bench/catalog.py does not fill a catalog yet ({path}, {objects:,} objects)")


def commit_changes(path: str, objects: int, changes: int, run: int) -> None:
    """Commit run number ``run``, in which ``changes`` of the ``objects`` changed, as ``lb run`` does.

    To be written with ``lbcore.catalog``: steps in id order, closed rows, the run's file of row changes.
    """
    raise NotMeasured(f"bench/catalog.py does not commit yet ({path}, {objects:,}, {changes:,}, run {run})")


def synthetic_catalog(workspace: Workspace) -> Result:
    """Fill catalogs of growing size, and commit the same number of changes to each."""
    rows = []
    commits: list[float] = []
    for objects in (workspace.catalog_objects // 10, workspace.catalog_objects):
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
        grown = (_bytes(folder) - size) / COMMITS / workspace.catalog_changes
        commits.append(sorted(times)[COMMITS // 2])
        rows.append(
            (
                f"{objects:,}",
                f"{size / objects:.0f}",
                f"{objects / filled:,.0f}",
                f"{commits[-1]:.2f}",
                f"{grown:.0f}",
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
            "bytes per change",
        ),
        rows=rows,
        notes=[
            f"ten times the objects, time of a commit: {commits[1] / commits[0]:.2f} "
            "(1 when it grows with the changes only).",
            f"peak memory of the process: {peak_bytes / 1e6:.0f} MB.",
        ],
    )


def _bytes(folder: str) -> int:
    """What the files of a catalog take on disk, its log included."""
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
