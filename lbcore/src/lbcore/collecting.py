"""From the feed to durable hints: before and after a run's view is made, and alone (``lb collect``).

Both may be at work at once, so what a run relies on is its own: the number of its last collection, and up to when that
told. What is collected later has a higher number, and outlives the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.hints import COLLECTION
from lbcore.catalog.runs import Run
from lbcore.lock import locked
from lbcore.model import View
from lbcore.plugins.types import Collection, Detector, Peekable, Source
from lbcore.target import LB

_HINTS_TOGETHER = 20_000
"""In one transaction, so that a run that writes at the same time never waits for long."""
_NEVER_NS = 1 << 62
_OPEN_NS = 7 * 86_400 * 10**9
"""For so long after its last record a file counts as open for writing without a record that says that it was closed."""

_CURSOR = "cursor"
_GAP = "gap"
_GAP_COLLECTION = "gap_collection"


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """What a collection found."""

    hints: int
    gap: str | None
    """Why the feed cannot be trusted; durable, and the next run scans."""
    notes: Sequence[str]
    """What the detector says of the feed."""


@contextlib.contextmanager
def collecting(target: bytes, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """One collection of a job at a time; see ``lbcore.lock.locked``.

    :raises LockedError: when another one is going on, and nobody waits.
    """
    with locked(os.path.join(target, LB, b"collecting"), waiting):
        yield


def collect(catalog: Catalog, detector: Detector, source: Source, *, run: int | None = None) -> Collected:
    """What the feed tells; once that is durable, the feed may forget it. To be called in ``collecting``.

    :param run: the number of the run that is about to make its view; None for a collection that runs alone: an open run
        takes no notice of it.
    :raises LbError: when the feed cannot be read.
    """
    cursor = catalog.meta.get(_CURSOR)
    found = _begun(catalog, detector.complete, cursor, detector.collect(source, cursor))
    number = (catalog.meta.get(COLLECTION) or 0) + 2  # between two a run keeps hints

    def place() -> None:
        catalog.meta.put(COLLECTION, number)
        catalog.meta.put(_CURSOR, found.cursor)
        if run is not None:
            catalog.runs.update(run, collection=number, cut_ns=found.cut_ns, snapshot=None)

    count = _enter(catalog, found, number, run, place)
    detector.acknowledge(source, found.cursor)
    return Collected(hints=count, gap=found.gap, notes=found.notes)


def peek(catalog: Catalog, detector: Peekable, source: Source, *, run: int) -> None:
    """Enter what ``collect`` would, in a transaction that is rolled back; the feed keeps it all.

    :raises LbError: when the feed cannot be read.
    """
    cursor = catalog.meta.get(_CURSOR)
    found = _begun(catalog, False, cursor, detector.peek(source, cursor))
    number = (catalog.meta.get(COLLECTION) or 0) + 2
    _enter(catalog, found, number, run, lambda: catalog.runs.update(run, collection=number, cut_ns=found.cut_ns))


def _begun(catalog: Catalog, complete: bool, cursor: bytes | None, found: Collection) -> Collection:
    """What was found; where runs before did not use the feed, it cannot tell what changed since the last of them."""
    if cursor or complete or found.gap is not None or catalog.runs.last_committed() is None:
        return found
    return dataclasses.replace(found, gap="the feed is read for the first time; runs before did not use it")


def flush(catalog: Catalog, number: int, detector: Detector, source: Source, racy_seconds: float) -> None:
    """Files that were written to in the last ``racy_seconds`` are to be in the snapshot as they are."""
    run = _run(catalog, number)
    if run.cut_ns:
        counts = detector.flush(source, catalog.hints.written_since(run.cut_ns - int(racy_seconds * 1e9)))
        with catalog.database.transaction():
            catalog.runs.add_counts(number, {f"flush_{name}": count for name, count in counts.items() if count})


def collect_again(catalog: Catalog, number: int, detector: Detector, source: Source, view: View) -> int:
    """What the feed tells up to the view. Nothing is forgotten by it: the next run reads it again.

    :returns: the number of the run's collection; what is to be kept for the next run gets a higher one.
    :raises LbError: when the feed cannot be read.
    """
    found = detector.collect(source, catalog.meta.get(_CURSOR), view)
    run = _run(catalog, number)
    assert run.collection is not None
    cut_ns = max(run.cut_ns, found.cut_ns)  # a snapshot without records of its own tells no time
    _enter(catalog, found, run.collection, number, lambda: catalog.runs.update(number, cut_ns=cut_ns))
    return run.collection


def _enter(catalog: Catalog, found: Collection, number: int, run: int | None, place: Callable[[], None]) -> int:
    """Make what was found durable; ``place`` does the rest in the last transaction. Returns the number of hints."""
    hints, count = iter(found.hints), 0
    while together := list(islice(hints, _HINTS_TOGETHER)):
        with catalog.database.transaction():
            catalog.hints.add(together, number, time.time_ns())
        count += len(together)
    renumbered = list(found.renumbered)
    with catalog.database.transaction():
        catalog.renumbered.add(renumbered, number)
        if found.gap is not None:
            catalog.meta.put(_GAP, found.gap)  # until a later scan is committed, whatever comes between
            catalog.meta.put(_GAP_COLLECTION, max(number, catalog.meta.get(_GAP_COLLECTION) or 0))
        opened = catalog.runs.open()
        if opened is None or opened.run == run:
            catalog.hints.drop_passing(number)  # what a later one says is so after the run's snapshot
        place()
    return count


def gap(catalog: Catalog) -> str | None:
    """Why the feed cannot be trusted: until a scan of a view that was made later is committed. None when it can."""
    reason: str | None = catalog.meta.get(_GAP)
    return reason


def use_up(catalog: Catalog, number: int, racy_seconds: float) -> None:
    """Within the transaction that commits run ``number``: what it collected needs no look any more.

    What a later collection brought stays, and so does a gap that a later one found.
    """
    run = _run(catalog, number)
    assert run.collection is not None
    catalog.hints.drop_used(
        run.collection,
        racy_from_ns=run.cut_ns - int(racy_seconds * 1e9) if run.cut_ns else _NEVER_NS,
        open_from_ns=run.cut_ns - _OPEN_NS if run.cut_ns else _NEVER_NS,
    )
    catalog.renumbered.drop_used(run.collection, keep_waiting=not run.scan)
    if run.scan and (catalog.meta.get(_GAP_COLLECTION) or 0) <= run.collection:
        catalog.meta.remove(_GAP)


def _run(catalog: Catalog, number: int) -> Run:
    run = catalog.runs.get(number)
    assert run is not None
    return run
