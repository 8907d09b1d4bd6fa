"""Single facts about the catalog: table ``meta``."""

from __future__ import annotations

from typing import Any

from lbcore.catalog.database import Database


class Meta:
    """Read and write facts by key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> Any:
        """The value, or None."""
        return self._database.value("SELECT value FROM meta WHERE key = ?", (key,))

    def put(self, key: str, value: Any) -> None:
        """Set the value."""
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def remove(self, key: str) -> None:
        """Forget the value."""
        self._database.execute("DELETE FROM meta WHERE key = ?", (key,))
