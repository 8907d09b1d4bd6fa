"""``lb check``: could a job run? What is wrong with its ends, and what its plugins say. Changes nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

from lbcore import source
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.runs import Run
from lbcore.config.job import Chosen, JobConfig
from lbcore.errors import LbError, TargetError
from lbcore.failure import explained
from lbcore.model import ObjectId
from lbcore.mounted import check_mounted
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import Checkable, Finding, Snapshotter, Source
from lbcore.run import catalog_path
from lbcore.snapshots import Snapshots

_LITTLE = 0.05
"""Less than this share of a filesystem free is little."""


def check_job(job: JobConfig, plugins: Plugins) -> Iterator[Finding]:
    """What an administrator should see to, the source first."""
    root: ObjectId | None = None
    try:
        root, _ = source.look_at_root(job.source)
    except LbError as error:
        yield Finding(what=str(error), advice="mount it, or correct 'source' in the configuration")
    if os.geteuid() != 0:
        yield Finding(
            what="this is not root: what this user cannot read is not backed up, and owners are not kept",
            advice="run lb as root",
            fatal=False,
        )
    try:
        check_mounted(job)
    except TargetError as error:
        yield Finding(what=str(error), advice="a run would stop at this")
    for folder in dict.fromkeys((job.target, job.state_dir or job.target)):
        yield from _check_folder(folder)
    if os.path.exists(catalog_path(job)):
        yield from _check_catalog(job, root, plugins)
    if root is not None:
        for chosen in (job.snapshotter, job.detector):
            yield from _check_plugin(chosen, Source(job=job.name, path=job.source))
        yield from _check_listing(job)


def _check_folder(folder: bytes) -> Iterator[Finding]:
    """Whether it can be written, or made, and has room."""
    there = folder
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    name = os.fsdecode(there)
    if not os.path.isdir(there):
        yield Finding(what=f"{name} is not a directory", advice="move it away, or choose another folder")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding(what=f"{name} cannot be written", advice="mount it writable, or see to the permissions there")
    space = os.statvfs(there)
    yield from check_room(name, "space", space.f_bavail, space.f_blocks)
    yield from check_room(name, "inodes", space.f_favail, space.f_files)


def check_room(name: str, what: str, free: int, total: int) -> Iterator[Finding]:
    """Whether enough of something (of which there may be no fixed number: ``total`` 0) is free."""
    if total and not free:
        yield Finding(what=f"{name} has no {what} left", advice="make room there")
    elif free < total * _LITTLE:
        left = f"{free / total:.1%} of its {what}"
        yield Finding(what=f"{name} has {left} left", advice="make room there soon", fatal=False)


def _check_catalog(job: JobConfig, root: ObjectId | None, plugins: Plugins) -> Iterator[Finding]:
    path = catalog_path(job)
    left: Iterable[Finding] = ()
    try:
        with explained(path), contextlib.closing(Catalog.open(path, read_only=True)) as catalog:
            opened = catalog.runs.open()
            if root is not None and catalog.runs.last() is not None:
                source.check_identity(catalog, job.source, root)
                left = list(_left(Snapshots(job, catalog, plugins), opened, job))
    except LbError as error:
        yield Finding(what=str(error), advice=f"'lb run {job.name}' would stop at this")
        return
    if opened is not None and opened.message:
        yield Finding(
            what=f"run {opened.run} is not finished: {opened.message}",
            advice=f"'lb run {job.name}' goes on with it",
            fatal=False,
        )
    yield from left


def _left(snapshots: Snapshots, opened: Run | None, job: JobConfig) -> Iterator[Finding]:
    """Snapshots that no run needs."""
    advice = f"'lb run {job.name}' destroys it; where it cannot, it says why"
    with contextlib.suppress(LbError, OSError):  # that is found when the snapshotter is looked at
        for name in sorted(snapshots.found() - {opened.snapshot if opened is not None else None}):
            yield Finding(what=f"the snapshot {name} is there, and no run needs it", advice=advice, fatal=False)
    for name, maker in snapshots.of_others().items():
        what = f"the snapshot {name} was made by the snapshotter '{maker}', which this job had before"
        yield Finding(what=what, advice=advice, fatal=False)


def _check_listing(job: JobConfig) -> Iterator[Finding]:
    """Whether snapshots can be had at all: nothing is told by that of the right to make one."""
    chosen = job.snapshotter
    try:
        snapshotter: Snapshotter = chosen.registration.create(chosen.options)
        snapshotter.list(job.source)
    except (LbError, OSError) as error:
        yield Finding(what=f"snapshots are not available: {error}", advice="a run would stop at this")


def _check_plugin(chosen: Chosen[Any], where: Source) -> Iterable[Finding]:
    try:
        thing = chosen.registration.create(chosen.options)
        return list(thing.check(where)) if isinstance(thing, Checkable) else []
    except (LbError, OSError) as error:
        return [Finding(what=f"{chosen.name}: {error}", advice="a run would stop at this")]
