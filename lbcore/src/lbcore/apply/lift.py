"""Phase 1: what changes its name is lifted out of the mirror, what is gone is removed; deepest first."""

from __future__ import annotations

import stat

from lbcore.apply.work import BATCH_STEPS, Work
from lbcore.catalog.steps import State, Step, What


def lift(work: Work) -> None:
    """Do the phase, or go on with it."""
    plan = work.catalog.plan
    work.progress.stage("lift", plan.count(f"old_depth IS NOT NULL AND state = {State.PLANNED:d}"))
    work.in_batches(lambda: plan.to_lift(BATCH_STEPS), lambda step: _lift(work, step), lambda steps: _mark(work, steps))


def _lift(work: Work, step: Step) -> None:
    names = work.catalog.plan.names(step.obj, gained=False)
    paths = [work.path(parent, name) for parent, name in names]
    if step.what & What.GONE:
        _remove(work, step, paths)
    elif stat.S_ISDIR(step.mode):
        work.target.lift(paths[0], work.target.stage_path(step.obj))
    else:
        if len(names) == len(work.catalog.names.of(step.obj)):
            _lift_last(work, step, paths)
            return
        for path in paths:
            work.target.unlink(path, work.run)


def _lift_last(work: Work, step: Step, paths: list[bytes]) -> None:
    """The object loses all its names: it waits in the stage for the next."""
    place = work.target.stage_path(step.obj)
    lifted = work.target.lb_status(place) is not None  # by an attempt that was cut short
    row = work.catalog.objects.get(step.obj) if len(paths) > 1 else None
    for path in work.target.likeliest_first(paths, row) if row is not None else paths:
        if lifted or not work.target.lift(path, place):
            work.target.unlink(path, work.run)
        else:
            lifted = True


def _remove(work: Work, step: Step, paths: list[bytes]) -> None:
    if stat.S_ISDIR(step.mode):
        work.target.remove_directory(paths[0], work.run)
        return
    if stat.S_ISREG(step.mode) and step.data_run is not None and step.data_run < work.run:
        paths = work.versions.keep_removed(paths, step)
    for path in paths:
        work.target.unlink(path, work.run)


def _mark(work: Work, steps: list[Step]) -> None:
    catalog = work.catalog
    catalog.plan.set_batch(step.obj for step in steps)
    catalog.names.lose_batch(work.run)
    catalog.plan.mark_batch(State.LIFTED)
    gone = [step.obj for step in steps if step.what & What.GONE]
    catalog.plan.set_batch(gone)
    catalog.objects.remove_batch(work.run)
    catalog.plan.mark_batch(State.DONE)
