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
from lbcore.made import Made
from lbcore.model import View
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import Snapshotter

_log = logging.getLogger(__name__)


class Snapshots:
    """The snapshots of one job. A name says whose it is: ``lb-JOB-EPOCH-RUN``.

    The epoch is the backup's own random name: two backups of one source may have jobs of the same name. What was made
    while the job had another name, or another snapshotter, is remembered by its name: a copy of a backup, which has
    the same epoch, may be another job's.
    """

    def __init__(self, job: JobConfig, catalog: Catalog, plugins: Plugins) -> None:
        self._chosen = job.snapshotter
        self._snapshotter: Snapshotter = job.snapshotter.registration.create(job.snapshotter.options)
        self._source = job.source
        self._catalog = catalog
        self._plugins = plugins
        self._made = Made(catalog)
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
        there = self.found()
        kept = row.snapshot if row.snapshot in there and row.view_to_ns is not None else None
        if row.snapshot is not None and kept is None:
            _log.warning("run %d: it cannot go on in its snapshot %s: it looks at the source anew", run, row.snapshot)
            self._enter(run, snapshot=None, view_from_ns=None, view_to_ns=None)
        self._destroy(self._chosen.name, self._snapshotter, there, kept)
        self._destroy_of_others()
        return kept is not None

    def take(self, run: int) -> None:
        """Make the snapshot of a run. What is needed to find it again is durable before it is begun.

        :raises LbError: when it cannot be made.
        """
        name = f"{self._prefix}{run}"
        with self._catalog.database.transaction():
            self._made.add(self._chosen, name)
            self._catalog.runs.update(run, snapshot=name, view_from_ns=time.time_ns(), view_to_ns=None)
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
            self._destroy(self._chosen.name, self._snapshotter, self.found())
        except (LbError, OSError) as error:  # the run has ended: this changes nothing of it
            self.left[self._prefix + "*"] = str(error)

    def found(self) -> set[str]:
        """Those of the backup that are there.

        :raises LbError: when they cannot be listed.
        """
        return self._ours(self._chosen.name, self._snapshotter)

    def of_others(self) -> dict[str, str]:
        """What was made by snapshotters that the job had before, with their names."""
        makers = [maker for maker in self._made.snapshotters() if maker != self._chosen.name]
        return {name: maker for maker in makers for name in sorted(self._made.names(maker))}

    def _ours(self, maker: str, snapshotter: Snapshotter) -> set[str]:
        made = self._made.names(maker)
        return {name for name in snapshotter.list(self._source) if name in made or self._is_own(name)}

    def _is_own(self, name: str) -> bool:
        return name.startswith(self._prefix) and name[len(self._prefix) :].isdecimal()

    def _destroy(self, maker: str, snapshotter: Snapshotter, there: set[str], kept: str | None = None) -> None:
        left = set(there)
        for name in sorted(there - {kept}):
            try:
                snapshotter.destroy(self._source, name)
                left.discard(name)
                self.left.pop(name, None)
            except (LbError, OSError) as error:  # the next run tries again; it must not keep this one from its work
                _log.warning("snapshot %s could not be destroyed: %s", name, error)
                self.left[name] = str(error)
        with self._catalog.database.transaction():
            self._made.keep(maker, left)

    def _destroy_of_others(self) -> None:
        """Snapshotters that the job had before are asked once more."""
        others = self.of_others()
        for maker in sorted(set(others.values())):
            try:
                snapshotter = self._made.create(maker, self._plugins)
                self._destroy(maker, snapshotter, self._ours(maker, snapshotter))
            except (LbError, OSError) as error:  # as above
                for name in (name for name, of in others.items() if of == maker):
                    _log.warning("snapshot %s could not be destroyed: %s", name, error)
                    self.left[name] = f"made by the snapshotter '{maker}', which this job had before: {error}"

    def _enter(self, run: int, **values: str | int | None) -> None:
        with self._catalog.database.transaction():
            self._catalog.runs.update(run, **values)
