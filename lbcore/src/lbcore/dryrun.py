"""``lb run --dry-run``: collect, observe and plan as a run does, and forget it all.

The feed is read, and keeps everything; what it told is in a transaction that is rolled back. It looks at the live tree,
also where runs read snapshots: to make one holds up the filesystem's users, and is a change.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lbcore import brake, collecting, following, source
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.steps import Step
from lbcore.config.job import JobConfig
from lbcore.config.limits import MaxDelete
from lbcore.errors import BrakeError, PausedError, TargetError
from lbcore.failure import explain
from lbcore.keeping import find_keeping
from lbcore.model import ObjectId, View
from lbcore.mounted import check_mounted
from lbcore.observing import Observing
from lbcore.plugins.types import Detector, Peekable, Source
from lbcore.progress import Progress
from lbcore.run import catalog_path, opened, plan_counts
from lbcore.scope import Scope


class Planned(NamedTuple):
    """What a run would do."""

    counts: dict[str, int]
    brake: str | None
    """Why the brake would stop it; None when it would not."""
    scan: str | None
    """Why everything was looked at; None when the feed was followed."""


def dry_run(
    job: JobConfig,
    progress: Progress,
    show: Callable[[Catalog, Step], None],
    *,
    max_delete: MaxDelete | None = None,
    full: bool = False,
) -> Planned:
    """Tell ``show`` each step that a run would take now; nothing is changed.

    :param full: look at every name, even where fingerprints say that nothing changed.
    :raises LbError: as a run would.
    """
    try:
        return _dry_run(job, progress, show, max_delete=max_delete, full=full)
    except (OSError, sqlite3.Error) as error:
        raise TargetError(explain(error, job.target, catalog_path(job))) from error


def _dry_run(
    job: JobConfig,
    progress: Progress,
    show: Callable[[Catalog, Step], None],
    *,
    max_delete: MaxDelete | None,
    full: bool,
) -> Planned:
    root, _ = source.look_at_root(job.source)
    check_mounted(job)
    with _catalog(job, root) as catalog:
        unfinished = catalog.runs.open()
        if unfinished is not None and unfinished.state != "observing":
            raise PausedError(f"run {unfinished.run} is not finished; 'lb run' goes on with it, then plan again")
        view = View(root=job.source, stable=False)
        with catalog.database.rolled_back():
            run = catalog.runs.begin(time.time_ns())
            detector: Detector = job.detector.registration.create(job.detector.options)
            scope = Scope(exclude=job.exclude, include=job.include, one_filesystem=job.one_filesystem)
            scan = _why_scan(catalog, detector, scope, Source(job=job.name, path=job.source), run=run, full=full)
            observing = Observing(
                catalog,
                run,
                view,
                scope,
                keeping=find_keeping(job.extras, view.root),
                racy_seconds=job.racy_seconds,
                workers=job.workers,
                kept_collection=0,
                progress=progress,
            )
            observing.plan(detector, scan=scan is not None, distrust=full)
            for step in catalog.plan.all():
                show(catalog, step)
            counts = plan_counts(catalog)
            try:
                brake.check(catalog, max_delete or job.max_delete, job.name)
            except BrakeError as error:
                return Planned(counts, str(error), scan)
            return Planned(counts, None, scan)


def _why_scan(catalog: Catalog, detector: Detector, scope: Scope, where: Source, *, run: int, full: bool) -> str | None:
    """Why everything is to be looked at; None once all that the feed has is collected, and can be followed."""
    scan = following.choose(catalog, detector, scope, full=full).scan
    if scan is not None:
        return scan
    if not isinstance(detector, Peekable):
        return "the feed of the job's detector cannot be read without being changed"
    collecting.peek(catalog, detector, where, run=run)
    return following.choose(catalog, detector, scope, full=full).scan


@contextlib.contextmanager
def _catalog(job: JobConfig, root: ObjectId) -> Iterator[Catalog]:
    """The job's catalog; before the first run an empty one, somewhere else."""
    if os.path.exists(catalog_path(job)):
        with opened(job) as (catalog, _):
            source.check_identity(catalog, job.source, root)
            yield catalog
        return
    with (
        tempfile.TemporaryDirectory(prefix="lb-dry-run-") as folder,
        contextlib.closing(Catalog.open(os.path.join(os.fsencode(folder), b"job.db"))) as catalog,
    ):
        yield catalog
