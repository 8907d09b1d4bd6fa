"""Phase 3: transfers deliver content into the stage; once it is durable there, the core sets it in place."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from lbcore.apply import shards, waiting
from lbcore.apply.arriving import Batch, Checkpoints, Unreadable, fail
from lbcore.apply.recovering import ARRIVING, clear_arrivals
from lbcore.apply.waiting import File
from lbcore.apply.work import Work
from lbcore.catalog.steps import State, What
from lbcore.keeping import Keeping
from lbcore.model import NotDelivered, View
from lbcore.plugins.types import Transfer
from lbcore.target import LB, TREE

NOTHING_BROUGHT = {"files_copied": 0, "bytes_copied": 0, "bytes_sent": 0}
"""What a run counts before it has brought anything."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """Where content comes from and how."""

    view: View
    keeping: Keeping
    transfers: Sequence[Transfer]
    executor: Executor
    workers: int
    unreadable: Unreadable


_FEW_FILES = 200
_FEW_BYTES = 64 << 20


def make_executor(work: Work, configured: Callable[[], Executor]) -> Executor:
    """Where shards run: for little work a thread of this process, which costs nothing to start."""
    plan = work.catalog.plan
    pending = f"what & {What.DATA | What.COMPARE:d} AND state < {State.DELIVERED:d}"
    few = plan.count(pending) <= _FEW_FILES and plan.total_bytes(pending) <= _FEW_BYTES
    return ThreadPoolExecutor(1) if few else configured()


def compare(work: Work, sources: Sources) -> None:
    """Files that may have changed under the same size and times: does their content differ?"""
    plan = work.catalog.plan
    work.begin_phase()
    work.progress.stage("compare", plan.count(f"what & {What.COMPARE:d} AND state < {State.DELIVERED:d}"))

    def start(files: list[File]) -> Future[list[tuple[int, bytes] | NotDelivered]]:
        items = [file.item for file in files]
        shard = shards.DigestShard(view=sources.view, keeping=sources.keeping, items=items)
        return sources.executor.submit(shards.digest, shard)

    for files, results in _in_parallel(waiting.shards(work, What.COMPARE, sources.workers), start, sources.workers):
        _enter_comparison(work, sources, {file.item.obj: file for file in files}, results)
        _advance(work, files)
        work.pause_point()


def _enter_comparison(
    work: Work, sources: Sources, files: dict[int, File], results: list[tuple[int, bytes] | NotDelivered]
) -> None:
    same, different, unexpected = [], [], 0
    with work.catalog.database.transaction():
        for result in results:
            if isinstance(result, NotDelivered):
                fail(work, sources.unreadable, files[result.obj], result)
                continue
            obj, digest = result
            step = files[obj].step
            if step is not None and digest == step.digest:
                same.append(obj)
            else:
                different.append(obj)
                unexpected += step is not None and step.what == What.COMPARE
        work.catalog.plan.mark_same(same)
        work.catalog.plan.mark_different(different)
        work.catalog.runs.add_counts(work.run, {"objects_changed": unexpected})


def deliver(work: Work, sources: Sources) -> None:
    """Bring what is to be brought, and set it in place."""
    plan = work.catalog.plan
    work.begin_phase()
    work.progress.stage("content", plan.count(f"what & {What.DATA:d} AND state < {State.DELIVERED:d}"))
    clear_arrivals(work)
    folders = itertools.count()

    def start(files: list[File]) -> Future[shards.Deliveries]:
        shard = shards.DeliverShard(
            transfers=tuple(sources.transfers),
            view=sources.view,
            keeping=sources.keeping,
            items=[file.item for file in files],
            extras={file.item.obj: work.catalog.extras.get(file.extras) for file in files if file.extras is not None},
            lb=os.path.join(work.target.path, LB),
            folder=b"%s/%d" % (ARRIVING, next(folders)),
            tree=os.path.join(work.target.path, TREE),
            privileged=work.target.privileged,
        )
        return sources.executor.submit(shards.deliver, shard)

    with ThreadPoolExecutor(1, thread_name_prefix="lb-sync") as syncer:
        checkpoints = Checkpoints(work, sources.unreadable, syncer)
        batch = Batch()
        for files, deliveries in _in_parallel(waiting.shards(work, What.DATA, sources.workers), start, sources.workers):
            batch.add(work, files, deliveries)
            _advance(work, files)
            pausing = work.pause_requested()
            if batch.full or pausing:
                checkpoints.begin(batch)
                batch = Batch()
            if pausing:
                checkpoints.finish()
                work.pause_point()
        if not batch.empty:
            checkpoints.begin(batch)
        checkpoints.finish()
        checkpoints.finish_placed()
    clear_arrivals(work)


def _advance(work: Work, files: list[File]) -> None:
    work.progress.advance(len(files), sum(file.item.attributes.size for file in files))


def _in_parallel(
    groups: Iterator[list[File]], start: Callable[[list[File]], Future[_Result]], workers: int
) -> Iterator[tuple[list[File], _Result]]:
    """Keep the workers busy; yield each group with its result, in order."""
    running: deque[tuple[list[File], Future[_Result]]] = deque()
    try:
        for group in groups:
            running.append((group, start(group)))
            if len(running) > workers + 2:
                done, future = running.popleft()
                yield done, future.result()
        while running:
            done, future = running.popleft()
            yield done, future.result()
    finally:
        for _, future in running:
            future.cancel()
        wait(future for _, future in running)
