"""Detector ``scan``: no feed; everything is looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from lbcore import source as source_end
from lbcore.model import Hint, Seen, View
from lbcore.plugins.types import Collection, Known, Pacing, Source
from lbcore.scope import Scope
from lbcore.walk import Walker

_RACY_SECONDS = 2.0
"""Directories that changed so shortly before they were read are read again by the next run."""


class Scan:
    """Walks the whole view. What the catalog knows by its fingerprint costs a look at each entry, and no more."""

    complete = True

    def __init__(self, pacing: Pacing | None = None) -> None:
        """
        :param pacing: waited for before the filesystem is asked for anything.
        """
        self._pacing = pacing

    def collect(self, source: Source, cursor: bytes | None, view: View | None = None) -> Collection:
        """There is no feed."""
        return Collection(hints=(), cursor=b"")

    def acknowledge(self, source: Source, cursor: bytes) -> None:
        """There is no feed."""

    def flush(self, source: Source, hints: Iterable[Hint]) -> Mapping[str, int]:
        """What is written to a filesystem of this host is in its snapshots."""
        return {}

    def observe(self, view: View, scope: Scope, known: Known, hints: Iterable[Hint]) -> Iterator[Seen]:
        """Every directory of the view."""
        root, _ = source_end.look_at_root(view.root)
        workers = min(8, os.cpu_count() or 1)
        walker = Walker(view, scope, known, racy_seconds=_RACY_SECONDS, workers=workers, pacing=self._pacing)
        yield from walker.walk(b"", root)
