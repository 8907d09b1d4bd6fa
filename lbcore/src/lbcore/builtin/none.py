"""Snapshotter ``none``: the view is the live tree."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

from lbcore.model import View


class LiveTree:
    """Takes no snapshot, and so has none."""

    stable = False

    def create(self, path: bytes, name: str) -> None:
        """Nothing."""

    def list(self, path: bytes) -> Collection[str]:
        """None: whoever looks for a view of earlier finds that it is gone."""
        return ()

    @contextlib.contextmanager
    def mount(self, path: bytes, name: str) -> Iterator[View]:
        """The tree as it is, changing while it is read."""
        yield View(root=path, stable=False)

    def destroy(self, path: bytes, name: str) -> None:
        """Nothing."""
