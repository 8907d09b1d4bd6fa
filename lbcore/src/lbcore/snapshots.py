"""The snapshot that an open run reads, kept over its interruptions; and what ended runs of the job left behind."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from lbcore import epoch, source
from lbcore.catalog.catalog import Catalog
from lbcore.config.job import JobConfig
from lbcore.errors import LbError
from lbcore.model import View
from lbcore.plugins.types import Snapshotter

_log = logging.getLogger(__name__)


class Snapshots:
    """The snapshots of one job. A name says whose it is: ``lb-JOB-EPOCH-RUN``.

    The epoch is the backup's own random name: two backups of one source may have jobs of the same name.
    """

    def __init__(self, job: JobConfig, catalog: Catalog) -> None:
        self._snapshotter: Snapshotter = job.snapshotter.registration.create(job.snapshotter.options)
        self._source = job.source
        self._catalog = catalog
        self._prefix = f"lb-{job.name}-{epoch.name(catalog)[:8]}-"
        self.left: dict[str, str] = {}
        """Snapshots that should be gone and could not be destroyed, and why."""

    @property
    def stable(self) -> bool:
        """Whether there are any: False when runs read the live tree."""
        return self._snapshotter.stable

    def keep(self, run: int) -> bool:
        """Destroy what ended runs left; True when the open ``run`` has a snapshot to go on with.

        Only one of which the run saw that it was made is kept: a crash may have left half of one.

        :raises LbError: when the snapshots cannot be listed.
        """
        row = self._catalog.runs.get(run)
        assert row is not None
        there = self._ours()
        kept = row.snapshot if row.snapshot in there and row.view_to_ns is not None else None
        if row.snapshot is not None and kept is None:
            _log.warning("run %d: its snapshot %s is not there (any more): it takes another", run, row.snapshot)
        self._destroy(there - {kept})
        return kept is not None

    def take(self, run: int) -> None:
        """Make the snapshot of a run. What is needed to find it again is durable before it is begun.

        :raises LbError: when it cannot be made.
        """
        name = f"{self._prefix}{run}"
        self._enter(run, snapshot=name, view_from_ns=time.time_ns(), view_to_ns=None)
        self._snapshotter.create(self._source, name)
        self._enter(run, view_to_ns=time.time_ns())

    @contextlib.contextmanager
    def view(self, run: int) -> Iterator[View]:
        """The view of a run: its snapshot, mounted; or the live tree.

        :raises LbError: when it cannot be mounted, or is not a view of the source.
        """
        row = self._catalog.runs.get(run)
        assert row is not None
        with self._snapshotter.mount(self._source, row.snapshot or "") as view:
            source.check_identity(self._catalog, view.root, source.look_at_root(view.root)[0])
            yield view

    def clear(self) -> None:
        """No run is open: none of the job's snapshots is needed any more. What cannot be destroyed is left."""
        try:
            self._destroy(self._ours())
        except (LbError, OSError) as error:  # the run has ended: this changes nothing of it
            self.left[self._prefix + "*"] = str(error)

    def _ours(self) -> set[str]:
        names = self._snapshotter.list(self._source)
        return {name for name in names if name.startswith(self._prefix) and name[len(self._prefix) :].isdecimal()}

    def _destroy(self, names: set[str]) -> None:
        for name in sorted(names):
            try:
                self._snapshotter.destroy(self._source, name)
                self.left.pop(name, None)
            except (LbError, OSError) as error:  # the next run tries again; it must not keep this one from its work
                _log.warning("snapshot %s could not be destroyed: %s", name, error)
                self.left[name] = str(error)

    def _enter(self, run: int, **values: str | int | None) -> None:
        with self._catalog.database.transaction():
            self._catalog.runs.update(run, **values)
