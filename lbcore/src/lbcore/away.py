"""Files whose content is not at hand in the source: nobody opens them, and the plan asks for none of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lbcore.catalog.away import AwaySteps
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.names import Paths
from lbcore.catalog.objects import Row
from lbcore.catalog.steps import Step, What
from lbcore.keeping import lacks_content
from lbcore.model import HintFlag

_NOT_COPIED = "its content is not at hand in the source (released to an archive), and not in the backup"


def spare_away(
    catalog: Catalog,
    *,
    is_away: Callable[[Mapping[str, bytes]], bool],
    kept_collection: int,
    is_back: Callable[[Step], bool],
) -> None:
    """Take reading content out of the plan where it is away, and into it where it has come back.

    What the backup holds of a file stays its content while size and modification time are the same. Where it holds
    another state, the step stays: it fails when its turn comes, and the backup keeps what it has. A file whose
    content it never held is entered without: an empty file stands for it in the mirror. Within a transaction.

    :param is_away: says it of an object's extras.
    :param is_back: whether the view shows that the content is there by now, whatever was seen before.
    """
    steps = AwaySteps(catalog.database, is_away)
    for step in steps.all():
        row = None if step.what & What.NEW else catalog.objects.get(step.obj)
        if row is None or lacks_content(row.mode, row.digest):
            _enter_without(catalog, step, row)
        elif (row.size, row.mtime_ns) == (step.size, step.mtime_ns):
            if tuple(row) == step[: len(row)] and is_back(step):
                continue  # only a hint led to it: nobody has looked
            catalog.plan.mark_same([step.obj])
            kept = catalog.hints.flags(step.id) & (HintFlag.DATA | HintFlag.DAMAGED)
            if row.ctime_ns != step.ctime_ns:
                kept |= HintFlag.DATA
            if kept:
                catalog.hints.keep(step.id, kept, kept_collection)  # compared once it is back
    steps.want_what_came_back()


def name_new(catalog: Catalog, run: int) -> None:
    """Name what ``run``, which is about to be committed, entered without content. Within the transaction of that.

    Not when it is observed: a run that is cut short once it has entered a file observes again, and then it is not new.
    Named once: a run that meets nothing new has nothing to report, and must not hide that another one has.
    """
    paths = Paths(catalog.names)
    for obj in catalog.objects.newly_without_content(run):
        path = next(iter(paths.of(obj)), b"")
        catalog.runs.add_problem(run, path, _NOT_COPIED, counted=True)


def _enter_without(catalog: Catalog, step: Step, row: Row | None) -> None:
    """A file whose content the backup does not hold."""
    plan = catalog.plan
    plan.mark_same([step.obj])
    names = plan.names(step.obj, gained=True)
    # Nothing but a look tells that it is back: a scan is to list its directories again.
    catalog.listings.doubt(parent for parent, _ in [*names, *catalog.names.of(step.obj)])
    if row is None:
        return
    renamed = names or plan.names(step.obj, gained=False)
    if tuple(row) == step[: len(row)] and not renamed and not catalog.hints.flags(step.id) & HintFlag.DAMAGED:
        plan.remove(step.obj)
