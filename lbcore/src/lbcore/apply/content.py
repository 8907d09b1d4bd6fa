"""Phase 3: transfers deliver content into the stage; once it is durable there, the core sets it in place."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from lbcore.apply import shards
from lbcore.apply.place import PASSING, add_name
from lbcore.apply.work import Work
from lbcore.catalog.steps import State, Step, What
from lbcore.model import Attributes, Delivered, HintFlag, NotDelivered, TransferItem, View
from lbcore.plugins.types import Transfer
from lbcore.target import LB, TREE

_SHARD_FILES = 1_000
_SHARD_BYTES = 256 << 20
_BATCH_FILES = 20_000
_BATCH_BYTES = 4 << 30
_ARRIVING = b"in"
_COARSE_NS = 2 * 10**9
"""Some filesystems keep times no finer than that."""
_LEFT = b"left-"

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """Where content comes from and how."""

    view: View
    transfers: Sequence[Transfer]
    executor: Executor
    workers: int
    kept_collection: int
    """Number under which hints are kept for the next run."""
    max_stale_ns: int
    """How long a file may change whenever it is read before that counts as an error."""


class _File(NamedTuple):
    """A step that waits for content, with the names the file has or gets in the mirror."""

    step: Step
    names: list[tuple[int, bytes]]


@dataclass(slots=True)
class _Batch:
    """What has arrived since the last checkpoint."""

    new: list[tuple[_File, bytes, bytes | None]] = field(default_factory=list)
    """New files with their digest, and the path relative to ``.lb``; None: in place already."""
    arrived: list[tuple[_File, bytes, bytes]] = field(default_factory=list)
    """Files the mirror has already, with the digest and the path of the new content, relative to ``.lb``."""
    failed: list[tuple[_File, NotDelivered]] = field(default_factory=list)
    size_bytes: int = 0
    sent_bytes: int = 0

    @property
    def full(self) -> bool:
        return len(self.arrived) + len(self.new) >= _BATCH_FILES or self.size_bytes >= _BATCH_BYTES


_FEW_FILES = 200
_FEW_BYTES = 64 << 20


def make_executor(work: Work, configured: Callable[[], Executor]) -> Executor:
    """Where shards run: for little work a thread of this process, which costs nothing to start."""
    plan = work.catalog.plan
    waiting = f"what & {What.DATA | What.COMPARE:d} AND state < {State.DELIVERED:d}"
    few = plan.count(waiting) <= _FEW_FILES and plan.total_bytes(waiting) <= _FEW_BYTES
    return ThreadPoolExecutor(1) if few else configured()


def compare(work: Work, sources: Sources) -> None:
    """Files that may have changed under the same size and times: does their content differ?"""
    plan = work.catalog.plan
    work.begin_phase()
    work.progress.stage("compare", plan.count(f"what & {What.COMPARE:d} AND state < {State.DELIVERED:d}"))

    def start(files: list[_File]) -> Future[list[tuple[int, bytes] | NotDelivered]]:
        items = [_item(work, file) for file in files]
        return sources.executor.submit(shards.digest, shards.DigestShard(view=sources.view, items=items))

    for files, results in _in_parallel(_groups(work, What.COMPARE, sources), start, sources.workers):
        _enter_comparison(work, sources, {file.step.obj: file for file in files}, results)
        work.progress.advance(len(files), sum(file.step.size for file in files))
        work.pause_point()


def _enter_comparison(
    work: Work, sources: Sources, files: dict[int, _File], results: list[tuple[int, bytes] | NotDelivered]
) -> None:
    same, different = [], []
    with work.catalog.database.transaction():
        for result in results:
            if isinstance(result, NotDelivered):
                _fail(work, sources, files[result.obj], result)
            elif result[1] == files[result[0]].step.digest:
                same.append(result[0])
            else:
                different.append(result[0])
        work.catalog.plan.mark_same(same)
        work.catalog.plan.mark_different(different)
        unexpected = sum(files[obj].step.what == What.COMPARE for obj in different)
        work.catalog.runs.add_counts(work.run, {"objects_changed": unexpected})


def deliver(work: Work, sources: Sources) -> None:
    """Bring what is to be brought, and set it in place."""
    plan = work.catalog.plan
    work.begin_phase()
    work.progress.stage("content", plan.count(f"what & {What.DATA:d} AND state < {State.DELIVERED:d}"))
    clear_arrivals(work)
    folders = itertools.count()

    def start(files: list[_File]) -> Future[shards.Deliveries]:
        folder = b"stage/%s/%d" % (_ARRIVING, next(folders))
        items = [_item(work, file) for file in files]
        shard = shards.DeliverShard(
            transfers=tuple(sources.transfers),
            view=sources.view,
            items=items,
            wishes=[work.wish(file.step) for file in files],
            places=[item.path if item.basis is None else None for item in items],
            lb=os.path.join(work.target.path, LB),
            folder=folder,
            tree=os.path.join(work.target.path, TREE),
            privileged=work.target.privileged,
        )
        return sources.executor.submit(shards.deliver, shard)

    batch = _Batch()
    placed: list[Step] = []
    for files, deliveries in _in_parallel(_groups(work, What.DATA, sources), start, sources.workers):
        _collect(work, batch, {file.step.obj: file for file in files}, deliveries)
        work.progress.advance(len(files), sum(file.step.size for file in files))
        if batch.full or work.pause_requested():
            placed = _checkpoint(work, sources, batch, placed)
            batch = _Batch()
            work.pause_point()
    placed = _checkpoint(work, sources, batch, placed)
    _checkpoint(work, sources, _Batch(), placed)
    clear_arrivals(work)


def undo_new(work: Work) -> None:
    """Remove new files that an attempt that was cut short has set in place and not marked: they are brought again."""
    after = 0
    work.begin_phase()
    while steps := work.catalog.plan.content(What.NEW, after, 10_000):
        after = steps[-1].obj
        gained = work.catalog.plan.names_of(steps)
        for step in steps:
            for parent, name in gained[step.obj] if stat.S_ISREG(step.mode) else ():
                _undo(work, step, work.path(parent, name))
    work.checkpoint(lambda: None)


def _undo(work: Work, step: Step, path: bytes) -> None:
    there = work.target.status(path)
    if there is None:
        return
    # It had its attributes before it came here.
    same = there.st_size == step.size and abs(there.st_mtime_ns - step.mtime_ns) < _COARSE_NS
    if stat.S_ISREG(there.st_mode) and same:
        work.target.unlink(path, work.run)
    else:
        work.target.set_aside(path, work.run)


def place_delivered(work: Work) -> None:
    """Set in place what an attempt that was cut short has delivered."""
    work.in_batches(
        lambda: work.catalog.plan.delivered(_BATCH_FILES),
        lambda step: _set_in_place(work, _File(step, work.catalog.names.of(step.obj)), step.arrived or b""),
        lambda steps: _mark_placed(work, steps),
    )
    clear_arrivals(work)


def clear_arrivals(work: Work) -> None:
    """Drop what was delivered without being marked, and the empty folders of what was set in place.

    A transfer's process may have outlived a run that was killed, and still write: so the folder is moved away first,
    and what cannot be removed now is removed by the next run.
    """
    folder = os.path.join(work.target.path, LB, b"stage")
    with contextlib.suppress(FileNotFoundError):
        os.rename(os.path.join(folder, _ARRIVING), os.path.join(folder, b"%s%d" % (_LEFT, time.time_ns())))
    for name in os.listdir(folder):
        if name.startswith(PASSING):
            os.unlink(os.path.join(folder, name))
        elif name.startswith(_LEFT):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    os.mkdir(os.path.join(folder, _ARRIVING), 0o700)


# -- shards -------------------------------------------------------------------------------------------------------


def _groups(work: Work, flag: int, sources: Sources) -> Iterator[list[_File]]:
    """The waiting steps, cut into shards: by number and size, and so that every worker has some."""
    plan = work.catalog.plan
    waiting = plan.count(f"what & {flag:d} AND state < {State.DELIVERED:d}")
    most = max(32, min(_SHARD_FILES, waiting // (2 * sources.workers) + 1))
    after, size = 0, 0
    group: list[_File] = []
    while page := plan.content(flag, after, 10_000):
        after = page[-1].obj
        gained = plan.names_of(page)
        for step in page:
            new = step.what & What.NEW
            group.append(_File(step, gained[step.obj] if new else work.catalog.names.of(step.obj)))
            size += step.size
            if len(group) >= most or size >= _SHARD_BYTES:
                yield group
                group, size = [], 0
    if group:
        yield group


def _in_parallel(
    groups: Iterator[list[_File]], start: Callable[[list[_File]], Future[_Result]], workers: int
) -> Iterator[tuple[list[_File], _Result]]:
    """Keep the workers busy; yield each group with its result, in order."""
    running: deque[tuple[list[_File], Future[_Result]]] = deque()
    try:
        for group in groups:
            running.append((group, start(group)))
            if len(running) > workers + 1:
                done, future = running.popleft()
                yield done, future.result()
        while running:
            done, future = running.popleft()
            yield done, future.result()
    finally:
        for _, future in running:
            future.cancel()
        wait(future for _, future in running)


def _item(work: Work, file: _File) -> TransferItem:
    """What a transfer is told of a file; in the view it has the path that it has, or gets, in the mirror."""
    step = file.step
    path = work.path(*file.names[0])
    return TransferItem(
        obj=step.obj,
        path=path,
        id=step.id,
        attributes=Attributes(step.mode, step.uid, step.gid, 1, step.size, step.mtime_ns, step.ctime_ns, step.rdev),
        basis=None if step.what & What.NEW else path,
    )


# -- results ------------------------------------------------------------------------------------------------------


def _collect(work: Work, batch: _Batch, files: dict[int, _File], deliveries: shards.Deliveries) -> None:
    for folder, placed, result in deliveries.results:
        file = files[result.obj]
        if isinstance(result, Delivered):
            path = folder + b"/" + result.path
            if file.step.what & What.NEW:
                batch.new.append((file, result.digest, None if placed else path))
            else:
                batch.arrived.append((file, result.digest, path))
            batch.size_bytes += file.step.size
            batch.sent_bytes += result.sent_bytes
        else:
            batch.failed.append((file, result))
    work.note_refused(deliveries.refused)


def _checkpoint(work: Work, sources: Sources, batch: _Batch, placed: list[Step]) -> list[Step]:
    """Make the batch durable and mark it, with what was set in place before; then set in place what was there before.

    A new file is marked once it is in place: until then nothing refers to it, and ``undo_new`` may remove it. For a
    file that is replaced the arrival is marked first, so that a crash while it is replaced needs no view to go on.
    """
    for file, _, path in batch.new:
        _place_new(work, file, path)

    def mark() -> None:
        _mark_placed(work, placed)
        _mark_new(work, batch.new)
        work.catalog.plan.mark_delivered(
            (digest, work.run, path, file.step.obj) for file, digest, path in batch.arrived
        )
        for file, result in batch.failed:
            _fail(work, sources, file, result)
        work.catalog.runs.add_counts(
            work.run,
            {
                "files_copied": len(batch.arrived) + len(batch.new),
                "bytes_copied": batch.size_bytes,
                "bytes_sent": batch.sent_bytes,
            },
        )

    work.checkpoint(mark)
    for file, _, path in batch.arrived:
        _set_in_place(work, file, path)
    return [file.step for file, _, _ in batch.arrived]


def _fail(work: Work, sources: Sources, file: _File, result: NotDelivered) -> None:
    """A file that could not be read stays as it was, and is looked at again by the next run."""
    catalog, step = work.catalog, file.step
    catalog.hints.keep(step.id, HintFlag.DATA, sources.kept_collection)
    since_ns = catalog.hints.since_ns(step.id) or time.time_ns()
    counted = not result.changed or time.time_ns() - since_ns >= sources.max_stale_ns
    catalog.runs.add_problem(work.run, work.path(*file.names[0]), result.reason, counted=counted)
    catalog.plan.set_batch([step.obj])
    catalog.plan.mark_batch(State.FAILED)
    catalog.listings.doubt(parent for parent, _ in file.names)


def _set_in_place(work: Work, file: _File, arrived: bytes) -> None:
    """Move arrived content to the file's first name; its other names are linked anew."""
    step = file.step
    first, *others = [work.path(parent, name) for parent, name in file.names]
    if work.target.lb_status(arrived) is not None:
        there = work.target.status(first)
        if there is not None and not stat.S_ISREG(there.st_mode):
            work.target.set_aside(first, work.run)
        before = work.catalog.objects.get(step.obj)
        if before is not None and before.data_run is not None and before.data_run < work.run:
            work.versions.keep_replaced(first, step.obj, before.data_run)
        work.target.replace(arrived, first)
    for path in others:
        add_name(work, first, path)


def _place_new(work: Work, file: _File, arrived: bytes | None) -> None:
    """Give a new file its names, unless the shard has done it."""
    if arrived is None and len(file.names) == 1:
        return
    first, *others = [work.path(parent, name) for parent, name in file.names]
    if arrived is not None:
        work.target.set_down(arrived, first, work.run)
    for path in others:
        add_name(work, first, path)


def _mark_new(work: Work, files: list[tuple[_File, bytes, bytes | None]]) -> None:
    catalog = work.catalog
    catalog.plan.set_batch((file.step.obj for file, _, _ in files), (digest for _, digest, _ in files))
    catalog.plan.mark_brought(work.run)
    catalog.names.gain_batch(work.run)
    catalog.objects.add_batch(work.run)


def _mark_placed(work: Work, steps: list[Step]) -> None:
    catalog = work.catalog
    catalog.plan.set_batch(step.obj for step in steps)
    catalog.plan.mark_batch(State.DONE)
    catalog.objects.put_batch(work.run)
