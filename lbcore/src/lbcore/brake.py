"""The brake: a run that would remove too much stops before it applies anything."""

from __future__ import annotations

import time

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.steps import What
from lbcore.config.limits import MaxDelete
from lbcore.errors import BrakeError

_APPROVED = "approved_removals"
_DAYS = 7
_DAY_NS = 86_400 * 10**9


def check(catalog: Catalog, limit: MaxDelete, job: str) -> tuple[int, bool]:
    """Returns how many objects the plan removes, and whether that was approved.

    Removals of the last seven days count too, so that a slow drain is seen; approved ones do not.

    :raises BrakeError: when it is more than ``limit`` allows and nobody approved it.
    """
    removals = removals_planned(catalog)
    if removals == 0:
        return 0, False
    before = catalog.runs.removals_since(time.time_ns() - _DAYS * _DAY_NS)
    if limit.count is not None and removals + before <= limit.count:
        return removals, False  # of however many objects: to count them takes the longer, the more there are
    objects = catalog.objects.count()
    if limit.allows(removals + before, objects + before):
        return removals, False
    allowed = approved(catalog)
    if allowed is not None and removals <= allowed:
        return removals, True
    earlier = f", after {before} in the last {_DAYS} days" if before else ""
    raise BrakeError(
        f"this run would remove {removals} of {objects} objects{earlier}, more than max_delete ({limit}) "
        f"allows; nothing was applied. If these removals are wanted: 'lb approve {job}', then run again"
    )


def removals_planned(catalog: Catalog) -> int:
    """How many objects the plan removes."""
    return catalog.plan.count(f"what & {What.GONE:d}")


def approve(catalog: Catalog, removals: int) -> None:
    """Let the next run remove up to ``removals`` objects, once."""
    with catalog.database.transaction():
        catalog.meta.put(_APPROVED, removals)


def approved(catalog: Catalog) -> int | None:
    """How many objects the next run was allowed to remove; None when nobody has."""
    count: int | None = catalog.meta.get(_APPROVED)
    return count


def use_approval(catalog: Catalog) -> None:
    """The approval is used up."""
    catalog.meta.remove(_APPROVED)
