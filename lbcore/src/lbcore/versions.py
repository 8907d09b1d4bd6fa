"""History ``versions``: replaced and removed content stays on the target, under ``.lb/versions``.

A version is named by its object and the run that brought it; rows of the catalog say which points in time show it.
"""

from __future__ import annotations

from collections.abc import Sequence

from lbcore.catalog.objects import Row
from lbcore.catalog.steps import Step
from lbcore.target import Target


class Versions:
    """Keep old content; find it again."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def keep_removed(self, paths: Sequence[bytes], row: Row | Step) -> list[bytes]:
        """A file leaves the mirror: its content moves to its version. Returns the names that are left to be removed."""
        place = self._target.version_path(row.obj, row.data_run or 0)
        # A version that is there was kept by an attempt that a crash cut short.
        kept = self._target.lb_status(place) is not None
        left = []
        for path in self._target.likeliest_first(paths, row):
            if kept or not self._target.lift(path, place):
                left.append(path)
            else:
                kept = True
        return left

    def keep_replaced(self, paths: Sequence[bytes], row: Row) -> None:
        """A file is about to be replaced by rename: its content gets a further name, its version."""
        place = self._target.version_path(row.obj, row.data_run or 0)
        # A version that is there was kept by an attempt that a crash cut short: the mirror may hold the new content.
        if self._target.lb_status(place) is None:
            any(self._target.link(path, place) for path in self._target.likeliest_first(paths, row))
