"""Directories known to be as the catalog holds them: tables ``listing``, ``seen_listing``, ``seen_name``."""

from __future__ import annotations

from collections.abc import Iterable

from lbcore.catalog.database import Database
from lbcore.model import ObjectId


class Listings:
    """Fingerprints of directories; also what detectors may ask (``plugins.types.Known``)."""

    def __init__(self, database: Database, seed: int) -> None:
        self._database = database
        self.seed = seed

    def fingerprint(self, directory: ObjectId) -> int | None:
        """The fingerprint under which the catalog holds this directory exactly, or None."""
        value = self._database.value(
            "SELECT l.fingerprint FROM object o JOIN listing l USING (obj) WHERE o.id = ?", (directory,)
        )
        return None if value is None else int.from_bytes(value, "big")

    def near(self, object_id: ObjectId, count: int) -> list[ObjectId]:
        """Up to ``count`` ids of objects that come right before or after this one."""
        half = count // 2
        sides = ("id > ? ORDER BY id", count - half), ("id < ? ORDER BY id DESC", half)
        return [
            one
            for side, limit in sides
            for (one,) in self._database.execute(f"SELECT id FROM object WHERE {side} LIMIT ?", (object_id, limit))
        ]

    def see(self, directory: int, fingerprint: int) -> None:
        """The open run saw this; it counts once the run is committed."""
        self._database.execute(
            "INSERT OR REPLACE INTO seen_listing VALUES (?, ?)", (directory, fingerprint.to_bytes(16, "big"))
        )

    def doubt(self, directories: Iterable[int]) -> None:
        """Something in these directories is not in the backup as seen: they are listed again next run."""
        self._database.execute_many("DELETE FROM seen_listing WHERE obj = ?", ((obj,) for obj in directories))

    def drop_planned(self) -> None:
        """What is known of the directories that the plan changes ends here."""
        self._database.execute(
            "DELETE FROM listing WHERE obj IN (SELECT obj FROM seen_listing UNION "
            "SELECT parent FROM step_name UNION SELECT obj FROM step)"
        )
        # A change of an object's attributes is a change of its parents' listings. CROSS: begin with the few steps.
        self._database.execute(
            "DELETE FROM listing WHERE obj IN (SELECT n.parent FROM step s CROSS JOIN name n ON n.obj = s.obj)"
        )

    def keep_seen(self) -> None:
        """The run is committed: what it saw is what the catalog holds."""
        self._database.execute("INSERT OR REPLACE INTO listing SELECT obj, fingerprint FROM seen_listing")

    def add_seen_names(self, directory: int, names: Iterable[bytes]) -> None:
        """Names of a directory that is listed in parts."""
        self._database.execute_many(
            "INSERT OR IGNORE INTO seen_name VALUES (?, ?)", ((directory, name) for name in names)
        )

    def missing_names(self, directory: int) -> list[tuple[bytes, int]]:
        """(name, object) of what the catalog has in a directory listed in parts and no part showed."""
        rows = self._database.execute(
            "SELECT name, obj FROM name n WHERE parent = :parent AND NOT EXISTS "
            "(SELECT 1 FROM seen_name s WHERE s.parent = :parent AND s.name = n.name)",
            {"parent": directory},
        ).fetchall()
        self._database.execute("DELETE FROM seen_name WHERE parent = ?", (directory,))
        return rows
