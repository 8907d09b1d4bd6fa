"""Does a run follow its job's feed, or does it look at everything?"""

from __future__ import annotations

from typing import NamedTuple

from lbcore import collecting
from lbcore.catalog.catalog import Catalog
from lbcore.plugins.types import Detector
from lbcore.scope import Scope

SCOPE = "scope"
"""Key of the fingerprint of what the last committed scan covered (``Meta``)."""


class Choice(NamedTuple):
    """What was decided, by what is known when a run is about to observe."""

    scan: str | None
    """Why everything is looked at; None: what hints name is."""
    gap: str | None
    """Why the feed could not be trusted, when a scan makes up for that."""


def choose(catalog: Catalog, detector: Detector, scope: Scope, *, full: bool) -> Choice:
    """To be called when all hints that there are were collected.

    :param full: a scan is asked for.
    """
    if catalog.runs.last_committed() is None:
        return Choice("there is no backup yet", None)  # before the first scan nothing was there to be missed
    gap = collecting.gap(catalog)
    if detector.complete:
        return Choice("the job's detector has no feed", gap)
    if gap is not None:
        return Choice(f"the feed has a gap: {gap}", gap)
    if full:
        return Choice("a full run is asked for", None)
    if catalog.meta.get(SCOPE) != str(scope.fingerprint):
        return Choice("what the job covers has changed", None)
    return Choice(None, None)
