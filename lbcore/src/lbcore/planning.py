"""Turn differences into a plan: what is gone with its directory, what each step does, and in which order."""

from __future__ import annotations

import stat
from collections.abc import Callable

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import ROOT
from lbcore.catalog.steps import Step, What
from lbcore.errors import CatalogError
from lbcore.model import ObjectId


def close_over_gone(catalog: Catalog, ask: Callable[[list[ObjectId]], None] | None) -> None:
    """Whatever the catalog places below a directory that is gone loses that name too.

    An object without a name left is gone; it gets a step that says so. (Design: "Closure".)

    :param ask: has the view looked at for objects that are missing; None when all of it was seen.
    """
    waiting = catalog.plan.losing_names()
    while waiting:
        missing = [row for row in map(catalog.objects.get, _nameless(catalog, waiting)) if row is not None]
        if ask is not None and missing:
            ask([row.id for row in missing])
            nameless = set(_nameless(catalog, [row.obj for row in missing]))
            missing = [row for row in missing if row.obj in nameless]
        waiting = []
        for row in missing:
            catalog.plan.put((*row, What.GONE))
            if stat.S_ISDIR(row.mode):
                waiting += catalog.plan.lose_children(row.obj)


def _nameless(catalog: Catalog, objects: list[int]) -> list[int]:
    return [obj for obj in objects if not _has_name_left(catalog, obj)]


def _has_name_left(catalog: Catalog, obj: int) -> bool:
    if catalog.plan.names(obj, gained=True):
        return True
    return len(catalog.plan.names(obj, gained=False)) < len(catalog.names.of(obj))


class Order:
    """Settles what each step does, and its depth before and after."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._old: dict[int, int] = {ROOT: 0}
        self._new: dict[int, int] = {ROOT: 0}

    def settle(self) -> None:
        """Fill in ``what``, ``old_depth`` and ``depth`` of all steps but new files, whose rows are complete."""
        for step in self._catalog.plan.unsettled():
            self._settle(step)

    def _settle(self, step: Step) -> None:
        plan = self._catalog.plan
        lost = plan.names(step.obj, gained=False)
        gained = plan.names(step.obj, gained=True)
        new = step.what & What.NEW
        if new and not gained and step.obj != ROOT:
            plan.remove(step.obj)  # seen, and seen no more: it came and went while the tree was walked
            return
        what = step.what
        if (lost or gained) and not new:
            what |= What.NAMES
        old_depth = max((self._old_depth(parent) + 1 for parent, _ in lost), default=None)
        depth = None
        if gained and not (new and stat.S_ISREG(step.mode)):
            # It is linked from a name it keeps, so that one's directory must be in place before.
            kept = set(self._catalog.names.of(step.obj)) - set(lost)
            depth = max(self._new_depth(parent) + 1 for parent, _ in [*gained, *kept])
        plan.set_what(step.obj, what, old_depth, depth)

    def _old_depth(self, directory: int) -> int:
        return self._depth(directory, self._old, changed=False)

    def _new_depth(self, directory: int) -> int:
        return self._depth(directory, self._new, changed=True)

    def _depth(self, directory: int, known: dict[int, int], *, changed: bool) -> int:
        if len(known) > 100_000:
            known.clear()
            known[ROOT] = 0
        chain = []
        while directory not in known:
            chain.append(directory)
            if len(chain) > 100_000:
                raise CatalogError(f"object {directory} lies in a circle of directories; run 'lb run --full'")
            names = self._catalog.plan.names(directory, gained=True) if changed else []
            names = names or self._catalog.names.of(directory)
            if not names:
                raise CatalogError(f"object {directory} has no place in the tree; run 'lb run --full'")
            directory = names[0][0]
        depth = known[directory]
        for directory in reversed(chain):
            depth += 1
            known[directory] = depth
        return depth
