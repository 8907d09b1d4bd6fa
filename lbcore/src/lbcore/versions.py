"""History ``versions``: replaced and removed content stays on the target, under ``.lb/versions``.

A version is named by its object and the run that brought it; rows of the catalog say which points in time show it.
"""

from __future__ import annotations

from lbcore.target import Target


class Versions:
    """Keep old content; find it again."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def keep_removed(self, path: bytes, obj: int, data_run: int) -> None:
        """A file leaves the mirror: its content moves to its version."""
        self._target.lift(path, self._target.version_path(obj, data_run))

    def keep_replaced(self, path: bytes, obj: int, data_run: int) -> None:
        """A file is about to be replaced by rename: its content gets a second name, its version."""
        place = self._target.version_path(obj, data_run)
        # A version that is there was kept by an attempt that a crash cut short: the mirror may hold the new content.
        if self._target.lb_status(place) is None:
            self._target.link(path, place)
