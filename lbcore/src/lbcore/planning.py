"""Turn differences into a plan: what is gone with its directory, what each step does, and in which order."""

from __future__ import annotations

import stat
from collections.abc import Callable

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import ROOT, Row
from lbcore.catalog.steps import Step, What
from lbcore.errors import CatalogError
from lbcore.model import ObjectId


class CircleError(CatalogError):
    """What was seen of some directories makes a circle: they moved between two looks."""


def close_over_gone(catalog: Catalog, ask: Callable[[list[ObjectId]], None] | None, moving: Callable[[], bool]) -> None:
    """Whatever the catalog places below a directory that is gone loses that name too.

    An object without a name left is gone; it gets a step that says so. (Design: "Closure".)

    :param ask: has the view looked at for objects that are missing; None when all of it was seen.
    :param moving: whether something moved while it was looked at, so that what was seen is not one state of the tree.
    """
    plan = catalog.plan
    asked: set[int] = set()
    waiting, homeless = plan.losing_names(), _homeless(catalog) if moving() else []
    while waiting or homeless or (moving() and (homeless := plan.gone_gaining_names())):
        waiting += _empty(catalog, homeless)
        homeless = []
        missing = _nameless(catalog, waiting)
        if ask is not None and missing:
            asked |= {row.obj for row in missing}
            ask([row.id for row in missing])
            missing = _nameless(catalog, [row.obj for row in missing])
            waiting = [obj for obj in plan.losing_names() if obj not in asked]
            homeless = _homeless(catalog) if moving() else []
        else:
            waiting = []
        for row in missing:
            plan.put((*row, What.GONE))
            if stat.S_ISDIR(row.mode):
                waiting += plan.lose_children(row.obj)
                homeless.append(row.obj)


def _homeless(catalog: Catalog) -> list[int]:
    """New objects without a name. Directories seen at their old and their new place keep the one of them."""
    plan = catalog.plan
    for obj in plan.directories_gaining_names():
        first, *others = plan.names(obj, gained=True)
        for parent, name in others:
            plan.drop_gained(parent, name)
        lost = plan.names(obj, gained=False)
        for parent, name in catalog.names.of(obj):
            if (parent, name) not in [*lost, first]:
                plan.lose_name(parent, name, obj)
    return plan.new_without_name()


def _empty(catalog: Catalog, directories: list[int]) -> list[int]:
    """Nothing gets a name in a directory that has no place itself: it was removed after it was listed.

    Returns the objects of the catalog that would have got one.
    """
    plan = catalog.plan
    known = []
    directories = list(directories)
    while directories:
        directory = directories.pop()
        for obj in plan.drop_gained_in(directory):
            step = plan.step(obj)
            if step is None or not step.what & What.NEW:
                known.append(obj)
            elif not plan.names(obj, gained=True) and stat.S_ISDIR(step.mode):
                directories.append(obj)
            elif not plan.names(obj, gained=True):
                plan.remove(obj)
        step = plan.step(directory)
        if step is not None and step.what & What.NEW:
            plan.forget_directory(directory)
            plan.remove(directory)
    return known


def _nameless(catalog: Catalog, objects: list[int]) -> list[Row]:
    """Those of some objects that have no name left. The others get a step, in which they lose the names they lose."""
    found = []
    for row in map(catalog.objects.get, objects):
        if row is not None and not _has_name_left(catalog, row.obj):
            found.append(row)
        elif row is not None and catalog.plan.step(row.obj) is None:
            catalog.plan.put((*row, What.NAMES))
    return found


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
        if gained:
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
                raise CircleError(f"object {directory} lies in a circle of directories; run 'lb run --full'")
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
