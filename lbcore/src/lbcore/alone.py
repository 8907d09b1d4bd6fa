"""``lb collect``: collect and acknowledge without a run, also while one is at work."""

from __future__ import annotations

import contextlib
import os
import sqlite3

from lbcore import epoch, source
from lbcore.catalog.catalog import Catalog
from lbcore.collecting import Collected, collect, collecting
from lbcore.config.job import JobConfig
from lbcore.errors import LockedError, TargetError
from lbcore.failure import explain
from lbcore.mounted import check_mounted
from lbcore.plugins.types import Detector, Source
from lbcore.run import catalog_path


def collect_alone(job: JobConfig) -> Collected | None:
    """Take what a job's feed has into its catalog; the next run looks at it. None when its detector has no feed.

    :raises LockedError: when another collection of the job is going on, or the catalog is written to all the time.
    :raises LbError: when source, target or feed cannot be used, or the job has not run yet.
    """
    detector: Detector = job.detector.registration.create(job.detector.options)
    if detector.complete:
        return None
    check_mounted(job)
    path = catalog_path(job)
    try:
        if not os.path.exists(path):
            raise TargetError(
                f"there is no backup yet at {os.fsdecode(job.target)}: 'lb run {job.name}' makes it; or is the target "
                "not mounted?"
            )
        with contextlib.closing(Catalog.open(path, read_only=True)):
            pass  # one that is older is for a run to bring up to date: another may be at work with it
        with collecting(job.target), contextlib.closing(Catalog.open(path)) as catalog:
            _check(job, catalog)
            return collect(catalog, detector, Source(job=job.name, path=job.source))
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise LockedError(
                f"{os.fsdecode(path)} is written to by a run for long; nothing is lost, try again later"
            ) from error
        raise TargetError(explain(error, job.target, path)) from error


def _check(job: JobConfig, catalog: Catalog) -> None:
    """Source and target are those of the runs before."""
    root, _ = source.look_at_root(job.source)
    with catalog.database.transaction():
        if catalog.runs.last() is None:
            raise TargetError(f"no run of this job has begun yet: 'lb run {job.name}' does")
        source.check_identity(catalog, job.source, root)
        epoch.check_pair(catalog, job.target)
