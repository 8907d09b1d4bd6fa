"""Snapshotter ``none``: the view is the live tree."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lbcore.model import View
from lbcore.plugins.types import Source


class LiveTree:
    """Takes no snapshot."""

    @contextlib.contextmanager
    def view(self, source: Source, run: int) -> Iterator[View]:
        """The source as it is, changing while it is read."""
        yield View(root=source.path, stable=False)
