"""Phase 4: attributes of what changed nothing else, then of directories, deepest first."""

from __future__ import annotations

import os
import stat

from lbcore.apply.work import BATCH_STEPS, Work, find_directory
from lbcore.attributes import Wish, set_attributes
from lbcore.catalog.objects import ROOT
from lbcore.catalog.steps import State, Step, What

_PENDING = What.DATA | What.COMPARE
MISSING = "missing"
"""Counted like an attribute that the target could not take: an object that is not in the mirror any more."""


def finish_objects(work: Work) -> None:
    """Set the attributes of changed objects other than directories whose content is settled."""
    work.progress.stage("attributes", work.catalog.plan.count(f"state < {State.DELIVERED:d}"))
    work.begin_phase()
    after = 0
    while steps := work.catalog.plan.to_finish(after, BATCH_STEPS):
        after = steps[-1].obj
        settled = [step for step in steps if not step.what & _PENDING]
        for step in settled:
            paths = work.paths.of(step.obj)
            if paths:
                _set(work, paths[0], work.wish(step))
        work.checkpoint(lambda settled=settled: _mark(work, settled))  # type: ignore[misc]
        work.progress.advance(len(steps))
        work.pause_point()


def _mark(work: Work, steps: list[Step]) -> None:
    work.catalog.plan.set_batch(step.obj for step in steps)
    work.catalog.plan.mark_batch(State.DONE)
    work.catalog.objects.put_batch(work.run)


def finish_directories(work: Work) -> None:
    """Set the attributes of changed directories, and again of all that were written in; deepest first.

    An ordinary user may not be able to enter a directory any more once it has its mode.
    """
    catalog, plan = work.catalog, work.catalog.plan
    with catalog.database.transaction():
        plan.begin_directories()
        for obj in plan.directories_to_finish():
            paths = work.paths.of(obj)
            if paths or obj == ROOT:
                plan.add_directory(paths[0].count(b"/") + 1 if paths else 0, obj)
    while listed := plan.deepest_directories(BATCH_STEPS):
        steps = []
        for _, obj in listed:
            step = plan.step(obj)
            wish = work.wish(step) if step is not None else _present(work, obj)
            if step is not None:
                steps.append(step)
            paths = work.paths.of(obj)
            _set(work, paths[0] if paths else b"", wish)
        work.checkpoint(lambda steps=steps, listed=listed: _mark_directories(work, steps, listed))  # type: ignore[misc]
        work.progress.advance(len(steps))
    with catalog.database.transaction():
        plan.clear_written()


def _mark_directories(work: Work, steps: list[Step], listed: list[tuple[int, int]]) -> None:
    _mark(work, steps)
    work.catalog.plan.drop_directories(listed)
    # On the way to a directory those above it may have been opened up: their turn comes (again).
    for path in work.target.unlocked:
        obj = find_directory(work.catalog, path)
        if obj is not None:
            work.catalog.plan.add_directory(path.count(b"/") + 1 if path else 0, obj)


def _present(work: Work, obj: int) -> Wish:
    """The attributes the catalog has for a directory that only was written in."""
    row = work.catalog.objects.get(obj)
    assert row is not None
    extras = work.catalog.extras.get(row.extras)
    return Wish(mode=row.mode, uid=row.uid, gid=row.gid, mtime_ns=row.mtime_ns, extras=extras)


def _set(work: Work, path: bytes, wish: Wish) -> None:
    try:
        with work.target.handle(path) as fd:
            if stat.S_IFMT(os.fstat(fd).st_mode) == stat.S_IFMT(wish.mode):
                work.note_refused(set_attributes(fd, wish, privileged=work.target.privileged))
                return
    except FileNotFoundError:
        pass
    device = stat.S_ISCHR(wish.mode) or stat.S_ISBLK(wish.mode)
    # An ordinary user could not make it; else somebody took it out of the mirror or replaced it: `lb verify` names it.
    work.note_refused(["device" if device and not work.target.privileged else MISSING])
