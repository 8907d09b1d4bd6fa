"""Phase 4: attributes of what changed nothing else, then of directories, deepest first."""

from __future__ import annotations

import contextlib
import os
import stat

from lbcore.apply.place import make
from lbcore.apply.work import BATCH_STEPS, MISSING, Work
from lbcore.attributes import Wish, set_attributes
from lbcore.catalog.objects import ROOT, Row
from lbcore.catalog.steps import State, Step, What

_PENDING = What.DATA | What.COMPARE


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
                _set(work, step, paths[0], work.wish(step))
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
            thing = step or catalog.objects.get(obj)
            assert thing is not None
            if step is not None:
                steps.append(step)
            paths = work.paths.of(obj)
            wish = work.wish(thing)
            _set(work, thing, paths[0] if paths else b"", wish)
        work.checkpoint(lambda steps=steps, listed=listed: _mark_directories(work, steps, listed))  # type: ignore[misc]
        work.progress.advance(len(steps))
    with catalog.database.transaction():
        plan.clear_written()


def _mark_directories(work: Work, steps: list[Step], listed: list[tuple[int, int]]) -> None:
    _mark(work, steps)
    work.catalog.plan.drop_directories(listed)
    # On the way to a directory those above it may have been opened up: their turn comes (again).
    for path in work.target.unlocked | work.target.rebuilt:
        obj = work.catalog.names.find(path)
        if obj is not None:
            work.catalog.plan.add_directory(path.count(b"/") + 1 if path else 0, obj)


def _set(work: Work, thing: Step | Row, path: bytes, wish: Wish) -> None:
    for again in (False, True):
        with contextlib.suppress(FileNotFoundError), work.target.handle(path) as fd:
            if stat.S_IFMT(os.fstat(fd).st_mode) == stat.S_IFMT(wish.mode):
                work.note_refused(set_attributes(fd, wish, privileged=work.target.privileged))
                return
        if again or not _make_again(work, thing, path):
            return


def _make_again(work: Work, thing: Step | Row, path: bytes) -> bool:
    """Somebody took an object out of the mirror, or replaced it; False where that cannot be mended here."""
    if (stat.S_ISCHR(thing.mode) or stat.S_ISBLK(thing.mode)) and not work.target.privileged:
        work.note_refused(["device"])  # an ordinary user could not make it in the first place
        return False
    if stat.S_ISREG(thing.mode):
        work.note_missing(thing.id)
        return False
    work.note_refused([MISSING])
    make(work, thing, path)
    work.target.unlocked.add(path.rpartition(b"/")[0])  # that directory was written in
    return True
