"""Phase 2: directories and special files are made, lifted objects set down, names added; shallowest first."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from lbcore.apply.work import BATCH_STEPS, Work
from lbcore.catalog.objects import Row
from lbcore.catalog.steps import State, Step, What
from lbcore.keeping import lacks_content

PASSING = b"link-"
"""What a name begins with that a file has in the stage for a moment, before it replaces another name."""

_MAKE_MODE = 0o700
"""Of what is made: its own mode comes with its owner, in the last phase."""


def place(work: Work) -> None:
    """Do the phase, or go on with it."""
    plan = work.catalog.plan
    work.progress.stage("place", plan.count(f"depth IS NOT NULL AND state < {State.PLACED:d}"))
    work.in_batches(
        lambda: plan.to_place(BATCH_STEPS), lambda step: _place(work, step), lambda steps: _mark(work, steps)
    )


def _place(work: Work, step: Step) -> None:
    gained = [work.path(parent, name) for parent, name in work.catalog.plan.names(step.obj, gained=True)]
    held = work.paths.of(step.obj) if not step.what & What.NEW else []
    if not held:
        first = gained.pop(0)
        if step.what & What.NEW or not work.target.set_down(work.target.stage_path(step.obj), first, work.run):
            make(work, step, first)
        if stat.S_ISDIR(step.mode):
            work.paths.fix(step.obj, first)
        held = [first]
    for path in gained:
        add_name(work, held[0], path)


def make(work: Work, thing: Step | Row, path: bytes) -> None:
    """Make the object at ``path`` unless it is there; what is there and is not it is set aside."""
    there = work.target.status(path)
    if there is not None:
        if _is_it(work, thing, path, there):
            return
        work.target.set_aside(path, work.run)
    if isinstance(thing, Step) and not thing.what & What.NEW:
        # It was to be moved, and somebody took it out of the mirror: a file is brought anew.
        work.note_missing(thing)
        if stat.S_ISREG(thing.mode) and not lacks_content(thing.mode, thing.digest):
            work.catalog.plan.want_content(thing.obj)
    parent, name = work.target.parent_made(path, work.run)
    if stat.S_ISDIR(thing.mode):
        os.mkdir(name, _MAKE_MODE, dir_fd=parent)
    elif stat.S_ISLNK(thing.mode):
        assert thing.link_target is not None
        os.symlink(thing.link_target, name, dir_fd=parent)
    else:
        # An ordinary user may not make devices: the catalog holds them, the mirror does not.
        try:
            os.mknod(name, stat.S_IFMT(thing.mode) | 0o600, thing.rdev, dir_fd=parent)
        except PermissionError:
            if work.target.privileged:
                raise
            work.note_refused(["device"])


def _is_it(work: Work, thing: Step | Row, path: bytes, there: os.stat_result) -> bool:
    """Whether what is at ``path`` is what an attempt that was cut short has made."""
    if not work.resumed or stat.S_IFMT(there.st_mode) != stat.S_IFMT(thing.mode):
        return False
    if stat.S_ISLNK(thing.mode):
        parent, name = work.target.parent(path)
        return os.readlink(name, dir_fd=parent) == thing.link_target
    return there.st_rdev == thing.rdev


def add_name(work: Work, held: bytes, path: bytes) -> bool:
    """Let ``path`` be another name of the object at ``held``, replacing in one step what has it.

    False where it is that already, or nothing is at ``held``.
    """
    target = work.target
    there = target.status(held)
    if there is None:
        return False  # what an ordinary user may not make has no names either
    old_parent, old_name = target.parent(held)
    present = target.status(path)
    if present is not None and (present.st_ino, present.st_dev) == (there.st_ino, there.st_dev):
        return False
    passing = b"stage/" + PASSING + b"%d" % there.st_ino
    passing_parent, passing_name = target.lb.parent(passing)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(passing_name, dir_fd=passing_parent)
    try:
        os.link(old_name, passing_name, src_dir_fd=old_parent, dst_dir_fd=passing_parent, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EMLINK:
            error.strerror = "the target's filesystem allows no more hard links to this file"
        raise
    if present is not None and stat.S_ISDIR(present.st_mode):
        target.set_aside(path, work.run)
    target.replace(passing, path, work.run)
    return True


def _mark(work: Work, steps: list[Step]) -> None:
    catalog = work.catalog
    catalog.plan.set_batch(step.obj for step in steps)
    catalog.names.gain_batch(work.run)
    catalog.plan.mark_batch(State.PLACED)
    # Children refer to a new directory by its row; what was there before keeps its row until its step is done.
    catalog.plan.set_batch(step.obj for step in steps if step.what & What.NEW)
    catalog.objects.put_batch(work.run)
    work.paths.forget()
