"""Which snapshots a backup made that nobody has seen gone, and by which snapshotters: the job may have another now."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from lbcore.catalog.catalog import Catalog
from lbcore.config.job import Chosen, plain_options
from lbcore.config.options import build
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import Snapshotter, SnapshotterPlugin

_KEY = "snapshots_made"
"""Of ``Meta``: by snapshotter, the options it had and the names of snapshots, as JSON."""


class Made:
    """Remembered in the catalog of the backup."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def snapshotters(self) -> list[str]:
        """Which snapshotters may have any."""
        return sorted(self._read())

    def names(self, snapshotter: str) -> set[str]:
        """Names of snapshots that one made."""
        return set(self._read().get(snapshotter, {}).get("names", ()))

    def create(self, snapshotter: str, plugins: Plugins) -> Snapshotter:
        """One of them again, with the options that it had when it made a snapshot last.

        :raises UsageError: when it is not installed, or does not take those options any more.
        """
        registration = plugins.snapshotters().get(snapshotter)
        if registration is None:
            raise plugins.missing("snapshotter", snapshotter)
        return registration.create(build(registration.config, self._read()[snapshotter]["options"], snapshotter))

    def add(self, chosen: Chosen[SnapshotterPlugin], name: str) -> None:
        """One is about to be made. Within a transaction."""
        known = sorted(self.names(chosen.name) | {name})
        self._write(self._read() | {chosen.name: {"options": plain_options(chosen), "names": known}})

    def keep(self, snapshotter: str, there: Collection[str]) -> None:
        """Of what one made, no more than this is there. Within a transaction."""
        made = self._read()
        if snapshotter in made:
            left = sorted(self.names(snapshotter) & set(there))
            rest = {other: entry for other, entry in made.items() if other != snapshotter}
            self._write(rest | ({snapshotter: {**made[snapshotter], "names": left}} if left else {}))

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._catalog.meta.get(_KEY) or "{}")
        return found

    def _write(self, made: dict[str, Any]) -> None:
        self._catalog.meta.put(_KEY, json.dumps(made))
