"""Arrived content is made durable, set in place and marked, a batch at a time, while the workers go on."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from lbcore.apply.place import add_name
from lbcore.apply.shards import Deliveries
from lbcore.apply.waiting import File
from lbcore.apply.work import Work
from lbcore.catalog.steps import State, What
from lbcore.errors import TargetError
from lbcore.model import HintFlag, NotDelivered
from lbcore.target import LB

_BATCH_NEW_FILES = 50_000
"""Each batch waits for the disk; a crash costs the last two."""
_BATCH_FILES = 20_000
_BATCH_BYTES = 4 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """What becomes of files that could not be read."""

    kept_collection: int
    """Number under which hints are kept for the next run."""
    max_stale_ns: int
    """How long a file may change whenever it is read before that counts as an error."""


@dataclass(slots=True)
class Batch:
    """What has arrived since the last checkpoint."""

    new: list[int] = field(default_factory=list)
    """Numbers of new files."""
    digests: bytearray = field(default_factory=bytearray)
    """Of the new files, one after the other."""
    nameless: list[tuple[File, bytes | None]] = field(default_factory=list)
    """Those of the new files that lack names, with the path relative to ``.lb``; None: only the first is in place."""
    arrived: list[tuple[File, bytes, bytes]] = field(default_factory=list)
    """Files the mirror has already, with the digest and the path of the new content, relative to ``.lb``."""
    failed: list[tuple[File, NotDelivered]] = field(default_factory=list)
    size_bytes: int = 0
    sent_bytes: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing has arrived, and nothing failed to."""
        return not (self.new or self.arrived or self.failed)

    @property
    def full(self) -> bool:
        """Whether it is time to make it durable."""
        many = len(self.new) >= _BATCH_NEW_FILES or len(self.arrived) + len(self.failed) >= _BATCH_FILES
        return many or self.size_bytes >= _BATCH_BYTES

    def add(self, work: Work, files: list[File], deliveries: Deliveries) -> None:
        """What a shard has delivered."""
        by_number = {file.item.obj: file for file in files}
        for folder, placed, result in deliveries.results:
            file = by_number[result.obj]
            if isinstance(result, NotDelivered):
                self.failed.append((file, result))
                continue
            if file.item.basis is not None:
                self.arrived.append((file, result.digest, folder + b"/" + result.path))
            else:
                self.new.append(result.obj)
                self.digests += result.digest
                if not placed or len(file.names) > 1:
                    self.nameless.append((file, None if placed else folder + b"/" + result.path))
            self.size_bytes += file.item.attributes.size
            self.sent_bytes += result.sent_bytes
        work.note_refused(deliveries.refused)


class Checkpoints:
    """Makes batches durable and marks them, while the workers go on with the next one.

    A new file is marked once it is in place: until then nothing refers to it, and ``undo_new`` may remove it. For a
    file that is replaced the arrival is marked first, so that a crash while it is replaced needs no view to go on; that
    it is in place is marked with the next batch.
    """

    def __init__(self, work: Work, unreadable: Unreadable, syncer: Executor) -> None:
        self._work = work
        self._unreadable = unreadable
        self._syncer = syncer
        self._syncing: tuple[Batch, Future[None]] | None = None
        self._placed: list[int] = []
        """Set in place since the last batch was begun."""

    def begin(self, batch: Batch) -> None:
        """Begin to make a batch durable; the one before is finished first."""
        self.finish()
        for file, path in batch.nameless:
            _place_new(self._work, file, path)
        self._syncing = batch, self._syncer.submit(self._work.target.sync)

    def finish(self) -> None:
        """Once the batch begun last is durable, mark it; then set in place what replaces something."""
        if self._syncing is None:
            return
        batch, durable = self._syncing
        durable.result()
        self._syncing = None
        self._work.enter(lambda: self._mark(batch))
        for file, _, path in batch.arrived:
            set_in_place(self._work, file.item.obj, file.names, path)
        self._placed = [file.item.obj for file, _, _ in batch.arrived]

    def finish_placed(self) -> None:
        """Make durable and mark what the last batch has set in place."""
        if self._placed:
            self.begin(Batch())
            self.finish()

    def _mark(self, batch: Batch) -> None:
        work = self._work
        mark_placed(work, self._placed)
        _mark_new(work, batch)
        work.catalog.plan.mark_delivered(
            (digest, _data_run(work, file, digest), path, file.item.obj) for file, digest, path in batch.arrived
        )
        for file, result in batch.failed:
            fail(work, self._unreadable, file, result)
        work.catalog.runs.add_counts(
            work.run,
            {
                "files_copied": len(batch.arrived) + len(batch.new),
                "bytes_copied": batch.size_bytes,
                "bytes_sent": batch.sent_bytes,
            },
        )


def _data_run(work: Work, file: File, digest: bytes) -> int:
    """Which run brought this content: an earlier one, when it is the same again, and then there is no new version."""
    step = file.step
    return step.data_run if step is not None and step.data_run is not None and step.digest == digest else work.run


def fail(work: Work, unreadable: Unreadable, file: File, result: NotDelivered) -> None:
    """A file that could not be read stays as it was, and is looked at again by the next run."""
    catalog, item = work.catalog, file.item
    catalog.hints.keep(item.id, HintFlag.DATA, unreadable.kept_collection)
    since_ns = catalog.hints.since_ns(item.id) or time.time_ns()
    counted = not result.changed or time.time_ns() - since_ns >= unreadable.max_stale_ns
    catalog.runs.add_problem(work.run, item.path, result.reason, counted=counted)
    catalog.plan.set_batch([item.obj])
    catalog.plan.mark_batch(State.FAILED)
    if file.step is None:
        catalog.runs.add_counts(work.run, {"objects_new": -1})
    elif file.step.what != What.COMPARE:
        catalog.runs.add_counts(work.run, {"objects_changed": -1})
    catalog.listings.doubt(parent for parent, _ in file.names)


def set_in_place(work: Work, obj: int, names: list[tuple[int, bytes]], arrived: bytes) -> None:
    """Move arrived content to the file's first name; its other names are linked anew.

    :raises TargetError: when it is gone from the stage.
    """
    first, *others = [work.path(parent, name) for parent, name in names]
    if work.target.lb_status(arrived) is None:
        raise _lost(work, arrived)
    there = work.target.status(first)
    if there is not None and not stat.S_ISREG(there.st_mode):
        work.target.set_aside(first, work.run)
    before, step = work.catalog.objects.get(obj), work.catalog.plan.step(obj)
    if before is not None and before.data_run is not None and step is not None and step.data_run != before.data_run:
        work.versions.keep_replaced([first, *others], before)
    work.target.replace(arrived, first, work.run)
    for path in others:
        add_name(work, first, path)


def _place_new(work: Work, file: File, arrived: bytes | None) -> None:
    """Give a new file its names, of which the shard may have given it the first."""
    first, *others = [work.path(parent, name) for parent, name in file.names]
    if arrived is not None and not work.target.set_down(arrived, first, work.run):
        raise _lost(work, arrived)
    for path in others:
        add_name(work, first, path)


def _lost(work: Work, arrived: bytes) -> TargetError:
    path = os.fsdecode(os.path.join(work.target.path, LB, arrived))
    return TargetError(f"{path} is gone: something else removes files there; see to that, then 'lb run' goes on")


def _mark_new(work: Work, batch: Batch) -> None:
    catalog = work.catalog
    catalog.plan.set_batch(batch.new, bytes(batch.digests))
    catalog.plan.mark_brought(work.run)
    catalog.names.gain_batch(work.run)
    catalog.objects.add_batch(work.run)


def mark_placed(work: Work, objects: Iterable[int]) -> None:
    """These files are in place."""
    catalog = work.catalog
    catalog.plan.set_batch(objects)
    catalog.plan.mark_batch(State.DONE)
    catalog.objects.put_batch(work.run)
