"""After an attempt that was cut short: what it brought and did not mark is undone or completed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time

from lbcore.apply.arriving import mark_placed, set_in_place
from lbcore.apply.place import PASSING, add_name
from lbcore.apply.waiting import new_files
from lbcore.apply.work import Work
from lbcore.catalog.steps import State, Step
from lbcore.copying import digest_of
from lbcore.model import Attributes
from lbcore.target import LB

ARRIVING = b"stage/in"
"""Where shards have their folders, relative to ``.lb``."""
_LEFT = b"left-"
_BATCH_FILES = 20_000
_COARSE_NS = 2 * 10**9
"""Some filesystems keep times no finer than that."""


def undo_new(work: Work) -> None:
    """Remove new files that an attempt that was cut short has set in place and not marked: they are brought again."""
    work.begin_phase()
    for file in new_files(work):
        for parent, name in file.names:
            _undo(work, file.item.attributes, work.path(parent, name))
    work.checkpoint(lambda: None)


def _undo(work: Work, wanted: Attributes, path: bytes) -> None:
    there = work.target.status(path)
    if there is None:
        return
    # It had its attributes before it came here.
    same = there.st_size == wanted.size and abs(there.st_mtime_ns - wanted.mtime_ns) < _COARSE_NS
    if stat.S_ISREG(there.st_mode) and same:
        work.target.unlink(path, work.run)
    else:
        work.target.set_aside(path, work.run)


def place_delivered(work: Work) -> None:
    """Set in place what an attempt that was cut short has delivered."""
    lost: set[int] = set()

    def place(step: Step) -> None:
        if not _place_again(work, step):
            lost.add(step.obj)

    def mark(steps: list[Step]) -> None:
        mark_placed(work, [step.obj for step in steps if step.obj not in lost])
        work.catalog.plan.set_batch(lost)
        work.catalog.plan.mark_batch(State.FAILED)

    work.in_batches(lambda: work.catalog.plan.delivered(_BATCH_FILES), place, mark)
    clear_arrivals(work)


def _place_again(work: Work, step: Step) -> bool:
    """False where somebody took the content out of the stage: the mirror still has what was there before."""
    names = work.catalog.names.of(step.obj)
    if work.target.lb_status(step.arrived or b"") is not None:
        set_in_place(work, step.obj, names, step.arrived or b"")
        return True
    first, *others = [work.path(parent, name) for parent, name in names]
    if not _holds(work, first, step):
        work.note_missing(step)
        return False
    for path in others:
        add_name(work, first, path)
    return True


def _holds(work: Work, path: bytes, step: Step) -> bool:
    """Whether a path of the mirror has the new content already."""
    there = work.target.status(path)
    if there is None or not stat.S_ISREG(there.st_mode) or there.st_size != step.size:
        return False
    with work.target.handle(path) as handle:
        fd = os.open(b"/proc/self/fd/%d" % handle, os.O_RDONLY)
    try:
        return digest_of(fd) == step.digest
    finally:
        os.close(fd)


def clear_arrivals(work: Work) -> None:
    """Drop what was delivered without being marked, and the empty folders of what was set in place.

    A transfer's process may have outlived a run that was killed, and still write: so the folder is moved away first,
    and what cannot be removed now is removed by the next run.
    """
    folder = os.path.join(work.target.path, LB, b"stage")
    arriving = os.path.join(work.target.path, LB, ARRIVING)
    with contextlib.suppress(FileNotFoundError):
        os.rename(arriving, os.path.join(folder, b"%s%d" % (_LEFT, time.time_ns())))
    work.target.lb.forget()  # what was reached by these paths is elsewhere now
    for name in os.listdir(folder):
        if name.startswith(PASSING):
            os.unlink(os.path.join(folder, name))
        elif name.startswith(_LEFT):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    os.mkdir(arriving, 0o700)
