"""Collect hints and let the feed forget them: what a run does, and what ``lb collect`` does alone.

Both may be at work at once, so what a run relies on is its own: the number of its last collection, and up to when that
told. What is collected later has a higher number, and outlives the run.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.hints import COLLECTION
from lbcore.lock import locked
from lbcore.plugins.types import Detector, Source
from lbcore.target import LB

_HINTS_TOGETHER = 20_000
"""In one transaction, so that a run that writes at the same time never waits for long."""

_CURSOR = "cursor"
_GAP = "gap"
_GAP_COLLECTION = "gap_collection"


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """What a collection found."""

    number: int
    """Greater than that of each collection before."""
    hints: int
    gap: str | None
    """Why the feed cannot be trusted; durable, and the next run scans."""
    notes: Sequence[str]
    """What the detector says of the feed."""
    cut_ns: int
    """Up to when the feed told, by its own clock; 0 when unknown."""


@contextlib.contextmanager
def collecting(target: bytes, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """One collection of a job at a time; see ``lbcore.lock.locked``.

    :raises LockedError: when another one is going on, and nobody waits.
    """
    with locked(os.path.join(target, LB, b"collecting"), waiting):
        yield


def collect(
    catalog: Catalog, detector: Detector, source: Source, *, again: int | None = None, run: int | None = None
) -> Collected:
    """Collect; the hints are durable when this returns. To be called in ``collecting``.

    :param again: the number of the collection that this one completes. What it reads is not acknowledged: it is read
        again by the next one.
    :param run: the number of the run that collects.
    :raises LbError: as the detector does.
    """
    found = detector.collect(source, catalog.meta.get(_CURSOR))
    number = (catalog.meta.get(COLLECTION) or 0) + 2 if again is None else again  # between two a run keeps hints
    hints, count = iter(found.hints), 0
    while together := list(islice(hints, _HINTS_TOGETHER)):
        with catalog.database.transaction():
            catalog.hints.add(together, number, time.time_ns())
        count += len(together)
    renumbered = list(found.renumbered)
    with catalog.database.transaction():
        catalog.renumbered.add(renumbered, number)
        if again is None:
            catalog.meta.put(COLLECTION, number)
            catalog.meta.put(_CURSOR, found.cursor)
        if found.gap is not None:
            catalog.meta.put(_GAP, found.gap)  # until a later scan is committed, whatever comes between
            catalog.meta.put(_GAP_COLLECTION, max(number, catalog.meta.get(_GAP_COLLECTION) or 0))
        opened = catalog.runs.open()
        if opened is None or opened.run == run:
            catalog.hints.drop_passing()
    if again is None:
        detector.acknowledge(source, found.cursor)
    return Collected(number=number, hints=count, gap=found.gap, notes=found.notes, cut_ns=found.cut_ns)


def gap(catalog: Catalog) -> str | None:
    """Why the feed cannot be trusted since the last scan; None when it can."""
    reason: str | None = catalog.meta.get(_GAP)
    return reason


def forget_gap(catalog: Catalog, collection: int) -> None:
    """A scan is committed, which began after collection number ``collection``: no gap up to that one matters."""
    if (catalog.meta.get(_GAP_COLLECTION) or 0) <= collection:
        catalog.meta.remove(_GAP)
