"""Compare what a detector sees with what the catalog holds: the differences are the run's steps."""

from __future__ import annotations

import stat

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.steps import What
from lbcore.compare.draft import Draft
from lbcore.compare.listed import Listed
from lbcore.compare.observed import Observed
from lbcore.keeping import Keeping
from lbcore.model import Hint, HintFlag, Listing, Observation, Seen, Unreadable, View
from lbcore.scope import Scope


class Comparison:
    """Takes observations one by one and writes steps.

    Runs within one transaction of the caller's, who commits now and then.
    """

    def __init__(
        self, catalog: Catalog, run: int, view: View, scope: Scope, *, keeping: Keeping, kept_collection: int,
        racy_since_ns: int,
    ) -> None:  # fmt: skip
        """
        :param keeping: what is kept of objects besides their attributes.
        :param kept_collection: number under which hints are kept for the next run.
        :param racy_since_ns: content changed since then is compared again by the next run.
        """
        self._catalog = catalog
        self._draft = Draft(catalog, run, view, kept_collection=kept_collection, racy_since_ns=racy_since_ns)
        self.listed = Listed(self._draft, scope, keeping)
        self.observed = Observed(self._draft, scope)

    @property
    def moving(self) -> bool:
        """True when something was seen twice, and differently: the view did not hold still."""
        return self._draft.moving

    def close(self) -> None:
        """Let go of the view."""
        self.listed.close()

    def flush(self) -> None:
        """Write what is buffered."""
        self._draft.flush()

    def see(self, seen: Seen) -> None:
        """Take one observation."""
        if isinstance(seen, Listing):
            self.listed.see(seen)
        elif isinstance(seen, Observation):
            self.observed.see(seen)
        else:
            self._see_unreadable(seen)

    def _see_unreadable(self, seen: Unreadable) -> None:
        self._draft.add_problem(seen.path, seen.reason)
        self._draft.moving = True  # what was there may have been seen at its new place
        if seen.object is not None:
            self._draft.keep_hint(seen.object, HintFlag.NAMES)  # no feed may name it again
        if seen.directory is not None:
            self._draft.keep_hint(seen.directory, HintFlag.WHOLE)
            self._draft.flush()
            number = self._draft.number(seen.directory)
            if number is not None:
                self._catalog.listings.doubt([number])
                self._catalog.plan.keep_lost_names(number)

    def compare_hinted(self) -> None:
        """Files with a data hint are compared by digest even where size and times are the same."""
        self.flush()
        for hint in self._catalog.hints.all():
            self._compare_hint(hint)

    def _compare_hint(self, hint: Hint) -> None:
        obj, plan = self._draft.number(hint.id), self._catalog.plan
        row = None if obj is None else self._catalog.objects.get(obj)
        if row is None:
            return
        if hint.flags & HintFlag.DAMAGED:
            if plan.step(row.obj) is None:
                plan.put((*row, What.ATTRIBUTES))
            if stat.S_ISREG(row.mode):
                plan.want_content(row.obj)
        elif hint.flags & HintFlag.DATA and stat.S_ISREG(row.mode):
            step = plan.step(row.obj)
            if step is None:
                plan.put((*row, What.COMPARE if row.digest else What.DATA))
            else:
                plan.want_comparison(row.obj)  # what is known to differ may not be all
            self._draft.keep_if_racy(step.id if step else row.id, row.ctime_ns, HintFlag.DATA)  # until it is quiet
