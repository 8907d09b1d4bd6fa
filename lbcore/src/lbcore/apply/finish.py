"""Phase 4: attributes of what changed nothing else, then of directories, deepest first."""

from __future__ import annotations

import contextlib
import os
import stat

from lbcore.apply.place import add_name, make
from lbcore.apply.work import BATCH_STEPS, MISSING, Work
from lbcore.attributes import Wish, set_attributes
from lbcore.catalog.objects import ROOT, Row
from lbcore.catalog.steps import State, Step, What
from lbcore.keeping import lacks_content

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
                _set(work, step, paths, work.wish(step))
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
            _set(work, thing, paths or [b""], wish)
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


def _set(work: Work, thing: Step | Row, paths: list[bytes], wish: Wish) -> None:
    """Give an object its attributes, and names back that somebody took out of the mirror, or gave to something else."""
    first, *others = paths
    for again in (False, True):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), work.target.handle(first) as fd:
            if _is_it(fd, thing):
                work.note_refused(set_attributes(fd, wish, privileged=work.target.privileged))
                break
        if again or not _make_again(work, thing, paths):
            return
    for path in others:
        if add_name(work, first, path):
            work.note_refused([MISSING])
            _written_in(work, path)


def _is_it(fd: int, thing: Step | Row) -> bool:
    there = os.fstat(fd)
    if stat.S_IFMT(there.st_mode) != stat.S_IFMT(thing.mode) or there.st_rdev != thing.rdev:
        return False
    return not stat.S_ISLNK(thing.mode) or os.readlink("", dir_fd=fd) == os.fsdecode(thing.link_target or b"")


def _make_again(work: Work, thing: Step | Row, paths: list[bytes]) -> bool:
    """The first name is gone, or something else has it; False where that cannot be mended here."""
    first, *others = paths
    if (stat.S_ISCHR(thing.mode) or stat.S_ISBLK(thing.mode)) and not work.target.privileged:
        work.note_refused(["device"])  # an ordinary user could not make it in the first place
        return False
    if any(_held(work, thing, path) and add_name(work, path, first) for path in others):
        work.note_refused([MISSING])
    elif stat.S_ISREG(thing.mode) and not lacks_content(thing.mode, thing.digest):
        work.note_missing(thing)
        return False
    else:
        if stat.S_ISDIR(thing.mode):
            work.note_missing(thing)
        else:
            work.note_refused([MISSING])
        make(work, thing, first)
    _written_in(work, first)
    return True


def _held(work: Work, thing: Step | Row, path: bytes) -> bool:
    """Whether another name of the object still is one."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), work.target.handle(path) as fd:
        return _is_it(fd, thing)
    return False


def _written_in(work: Work, path: bytes) -> None:
    """The directory of ``path`` is to get its attributes again."""
    work.target.unlocked.add(path.rpartition(b"/")[0])
