"""From hints to a plan: let the detector look, compare with the catalog, settle the order."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from lbcore import source
from lbcore.away import spare_away
from lbcore.builtin.scan import Scan
from lbcore.catalog.catalog import Catalog
from lbcore.compare.comparison import Comparison
from lbcore.errors import SourceError
from lbcore.keeping import Keeping
from lbcore.model import Hint, HintFlag, Listing, ObjectId, Observation, Seen, Unreadable, View
from lbcore.planning import CircleError, Order, close_over_gone
from lbcore.plugins.types import Detector, Known, Paced, Pacing
from lbcore.progress import Progress
from lbcore.scope import Scope
from lbcore.walk import Walker

_ROWS_TOGETHER = 50_000
_SEEN_TOGETHER = 5_000
_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Nothing:
    """Knows no fingerprint (see ``plugins.types.Known``)."""

    seed: int

    def fingerprint(self, directory: ObjectId) -> int | None:
        """None."""
        return None

    def near(self, object_id: ObjectId, count: int) -> list[ObjectId]:
        """None."""
        return []


class Observing:
    """One observation of the source for an open run; what an earlier attempt saw is dropped."""

    def __init__(
        self, catalog: Catalog, run: int, view: View, scope: Scope, *, keeping: Keeping, racy_seconds: float,
        workers: int, kept_collection: int, progress: Progress, pause_point: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """
        :param keeping: what is kept of objects besides their attributes.
        :param kept_collection: number under which hints are kept for the next run.
        :param pause_point: called between observations; what it raises ends this one.
        """
        self._catalog = catalog
        self._run = run
        self._view = view
        self._scope = scope
        self._keeping = keeping
        self._racy_seconds = racy_seconds
        self._workers = workers
        self._kept_collection = kept_collection
        self._progress = progress
        self._pause_point = pause_point
        self._pacing: Pacing | None = None

    def plan(self, detector: Detector, *, scan: bool, distrust: bool = False) -> None:
        """Observe and plan. The plan is durable when this returns.

        :param detector: the job's.
        :param scan: look at everything, also where the detector has a feed; at its pace, where it has one.
        :param distrust: look at every name, even where fingerprints say that nothing changed.
        :raises SourceError: when the view is not, or no longer, the source.
        """
        pacing = detector.pace(self._view) if isinstance(detector, Paced) else None
        self._pacing = None if pacing is None else self._pausing(pacing)
        if scan and not detector.complete:
            detector = Scan(self._pacing)
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._plan(detector, distrust=distrust)
            except CircleError:
                if self._view.stable:
                    raise
                # Directories moved between two looks so that what was seen cannot have been at any one time.
        return self._plan(detector, distrust=distrust)

    def _plan(self, detector: Detector, *, distrust: bool) -> None:
        catalog = self._catalog
        with catalog.database.transaction():
            catalog.plan.clear()
            catalog.renumbered.restart()
            catalog.runs.forget_problems(self._run)
        started_ns = time.time_ns()
        run = catalog.runs.get(self._run)
        assert run is not None
        seen_from_ns = run.view_from_ns if self._view.stable and run.view_from_ns else started_ns
        comparison = Comparison(
            catalog,
            self._run,
            self._view,
            self._scope,
            keeping=self._keeping,
            kept_collection=self._kept_collection,
            racy_since_ns=seen_from_ns - int(self._racy_seconds * 1e9),
        )
        try:
            root, attributes = source.look_at_root(self._view.root)
            with catalog.database.transaction():
                comparison.listed.see_root(root, attributes)
            known: Known = Nothing(seed=catalog.listings.seed) if distrust else catalog.listings
            try:
                self._take(comparison, detector.observe(self._view, self._scope, known, catalog.hints.all()))
                if not detector.complete:
                    olds = [Hint(id=one, flags=HintFlag.NAMES, time_ns=0) for one in catalog.renumbered.unseen()]
                    if olds:  # before directories are listed: what is in them may be called otherwise
                        self._take(comparison, detector.observe(self._view, self._scope, known, olds))
                    self._follow(comparison, detector)
            except OSError as error:
                raise SourceError(f"the source could not be looked at: {error}; nothing was changed") from error
            except ValueError as error:
                raise SourceError(f"the detector said what cannot be: {error}; nothing was changed") from error
            self._prove(root)
            with catalog.database.transaction():
                comparison.compare_hinted()
                close_over_gone(
                    catalog,
                    None if detector.complete else lambda ids: self._ask(comparison, detector, ids),
                    lambda: comparison.moving,
                )
                comparison.observed.report_untold()
                if self._keeping.keepers:
                    spare_away(
                        catalog,
                        is_away=self._keeping.content_is_away,
                        kept_collection=self._kept_collection,
                        is_back=lambda step: self._is_back(comparison.observed.path_in_view(step.obj), step.mode),
                    )
                Order(catalog).settle()
                catalog.listings.drop_planned()
                if not self._view.stable:
                    catalog.runs.update(self._run, view_from_ns=started_ns, view_to_ns=time.time_ns())
        finally:
            comparison.close()

    def _is_back(self, path: bytes | None, mode: int) -> bool:
        """Whether content that was away is there."""
        if path is None:
            return False
        try:
            return not self._keeping.content_is_away(self._keeping.read(os.path.join(self._view.root, path), mode))
        except OSError:
            return False  # it is asked once more, if it ever is to be read

    def _prove(self, root: ObjectId) -> None:
        """The view still is what it was: a source that went away while it was read is not an empty one."""
        if source.look_at_root(self._view.root)[0] != root:
            raise SourceError("the source was replaced while it was looked at; nothing was changed, run again")

    def _ask(self, comparison: Comparison, detector: Detector, ids: list[ObjectId]) -> None:
        """Look at objects that no hint named."""
        hints = [Hint(id=one, flags=HintFlag.NAMES, time_ns=0) for one in ids]
        self._take(comparison, detector.observe(self._view, self._scope, self._catalog.listings, hints))
        self._follow(comparison, detector)

    def _follow(self, comparison: Comparison, detector: Detector) -> None:
        """What a feed's observations lead to: unknown parents, displaced objects; then unknown directories, whole.

        In that order: until every name is connected, the path of a directory may be an old one.
        """
        asked: set[ObjectId] = set()
        more = True
        while more:
            unconnected = self._connect(comparison)
            wanted = comparison.observed.take_unexplained() - asked
            asked |= wanted
            if wanted:
                hints = [Hint(id=one, flags=HintFlag.NAMES, time_ns=0) for one in sorted(wanted)]
                self._take(comparison, detector.observe(self._view, self._scope, self._catalog.listings, hints))
            elif not self._walk_new(comparison):
                more = False
            if more:
                self._take(comparison, iter(unconnected))
        with self._catalog.database.transaction():
            for one in unconnected:
                self._catalog.hints.keep(one.id, HintFlag.NAMES, self._kept_collection)

    def _connect(self, comparison: Comparison) -> list[Observation]:
        """Take observations again whose directories were not known, as long as that helps; those that are left."""
        left = comparison.observed.take_unconnected()
        while left:
            before = len(left)
            self._take(comparison, iter(left))
            left = comparison.observed.take_unconnected()
            if len(left) >= before:
                break
        return left

    def _walk_new(self, comparison: Comparison) -> bool:
        """List unknown directories, with all below, and doubtful ones; False when there are none."""
        new = comparison.observed.take_new_directories()
        for obj, directory_id in new:
            path = comparison.observed.path_in_view(obj)
            if path is None:
                self._keep(directory_id, HintFlag.WHOLE)
                continue
            walker = self._walker()
            self._take(comparison, walker.walk(path, directory_id))
            if not walker.reached:  # it was moved away, or replaced, before it was opened
                self._keep(directory_id, HintFlag.WHOLE)
        return self._list_doubtful(comparison) or bool(new)

    def _list_doubtful(self, comparison: Comparison) -> bool:
        """Directories of which a feed cannot tell all: their entries, and what is new below, whole. False: none."""
        catalog, doubtful = self._catalog, comparison.observed.take_doubtful_directories()
        for obj in doubtful:
            path, known = comparison.observed.path_in_view(obj), catalog.plan.step(obj) or catalog.objects.get(obj)
            if path is None or known is None:
                continue
            walker = self._walker()
            self._take(comparison, walker.walk(path, known.id, lambda one: catalog.objects.by_id(one) is None))
            if not walker.reached:
                self._keep(known.id, HintFlag.LIST)
        return bool(doubtful)

    def _pausing(self, pacing: Pacing) -> Pacing:
        """Who waits for long, ends when the run is to."""

        def wait(object_id: ObjectId, operations: int) -> None:
            self._pause_point()
            pacing(object_id, operations)

        return wait

    def _walker(self) -> Walker:
        return Walker(
            self._view,
            self._scope,
            self._catalog.listings,
            racy_seconds=self._racy_seconds,
            workers=self._workers,
            pacing=self._pacing,
        )

    def _keep(self, object_id: ObjectId, flags: HintFlag) -> None:
        """The next run is to look there."""
        with self._catalog.database.transaction():
            self._catalog.hints.keep(object_id, flags, self._kept_collection)

    def _take(self, comparison: Comparison, seen: Iterator[Seen]) -> None:
        """Feed observations to the comparison, some thousand rows a transaction."""
        with contextlib.ExitStack() as ended:
            if isinstance(seen, Generator):
                ended.callback(seen.close)  # it must not look on while the view is being taken away
            self._take_all(comparison, seen)

    def _take_all(self, comparison: Comparison, seen: Iterator[Seen]) -> None:
        more = True
        while more:
            more = False
            rows = 0
            with self._catalog.database.transaction():
                for one in itertools.islice(seen, _SEEN_TOGETHER):
                    self._pause_point()
                    more = True
                    if isinstance(one, Unreadable) and not one.path and not one.moving:
                        raise SourceError(f"the source cannot be read: {one.reason}; nothing was changed")
                    comparison.see(one)
                    count = len(one.entries or ()) if isinstance(one, Listing) else 1
                    self._progress.advance(1)
                    rows += count
                    if rows >= _ROWS_TOGETHER:
                        break
                comparison.flush()
