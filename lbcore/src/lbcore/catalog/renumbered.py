"""Objects that the source calls otherwise since the last run: table ``renumbered``."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

from lbcore.catalog.database import Database
from lbcore.model import ObjectId

_LONGEST = 1_000
"""More new numbers in a row than this are a circle, which no source can mean."""


class Old(enum.IntEnum):
    """What the open run has seen of an old id."""

    UNSEEN = 0
    THERE = 1
    GONE = 2
    FOLLOWED = 3
    """Gone, and the new id was looked at."""


class Before(NamedTuple):
    """What the catalog knows an object as."""

    id: ObjectId
    seen: Old


class Renumbered:
    """Pairs of an old and a new id. An object may be renumbered several times between two runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, pairs: Iterable[tuple[ObjectId, ObjectId]], collection: int) -> None:
        """Enter what collection number ``collection`` found; hints for an old id are for the new one, too."""
        olds = []
        for old, new in pairs:
            self._database.execute(
                "INSERT INTO renumbered VALUES (?, ?, ?, ?) ON CONFLICT (old) DO UPDATE SET "
                "new = excluded.new, collection = max(collection, excluded.collection)",
                (old, new, collection, Old.UNSEEN),
            )
            olds.append(old)
        for old in olds:
            self._database.execute(
                "INSERT INTO hint SELECT :new, flags, time_ns, :collection, since_ns FROM hint WHERE id = :old "
                "ON CONFLICT (id) DO UPDATE SET flags = flags | excluded.flags, "
                "time_ns = max(time_ns, excluded.time_ns), collection = max(collection, excluded.collection)",
                {"old": old, "new": self.after(old), "collection": collection},
            )

    def any(self) -> bool:
        """Whether there are any."""
        return self._database.value("SELECT 1 FROM renumbered LIMIT 1") is not None

    def unseen(self) -> list[ObjectId]:
        """Old ids that the catalog knows and that were not looked at."""
        sql = "SELECT old FROM renumbered WHERE seen = ? AND EXISTS (SELECT 1 FROM object WHERE id = old)"
        return [old for (old,) in self._database.execute(sql, (Old.UNSEEN,))]

    def restart(self) -> None:
        """The source is looked at anew."""
        self._database.execute("UPDATE renumbered SET seen = ? WHERE seen != ?", (Old.UNSEEN, Old.UNSEEN))

    def after(self, old: ObjectId) -> ObjectId | None:
        """What an object is called by now, or None when it was not renumbered."""
        new, steps = None, 0
        while (following := self._following(new or old)) is not None and steps < _LONGEST:
            new, steps = following, steps + 1
        return new

    def before(self, new: ObjectId) -> Before | None:
        """Under which earlier id the catalog knows an object, or None."""
        steps = 0
        while (row := self._preceding(new)) is not None and steps < _LONGEST:
            new, steps = row[0], steps + 1
            if row[2]:
                return Before(new, Old(row[1]))
            if row[1] == Old.THERE:
                return None  # this view is older than what it was called later
        return None

    def unseen_before(self, new: ObjectId) -> list[ObjectId]:
        """The earlier ids, up to the one that the catalog knows, of which nothing was seen yet."""
        found, steps = [], 0
        while (row := self._preceding(new)) is not None and steps < _LONGEST:
            new, steps = row[0], steps + 1
            if row[1] == Old.UNSEEN:
                found.append(new)
            if row[2]:
                break
        return found

    def see(self, old: ObjectId, seen: Old) -> None:
        """Note what was seen."""
        self._database.execute("UPDATE renumbered SET seen = ? WHERE old = ?", (seen, old))

    def drop_used(self, collection: int, *, keep_waiting: bool) -> None:
        """Drop what no later collection than ``collection`` has touched.

        :param keep_waiting: but not where the old id is gone and the new one could not be looked at.
        """
        self._database.execute(
            "DELETE FROM renumbered WHERE collection <= ? AND NOT (? AND old IN (WITH RECURSIVE waiting (old, new) AS ("
            "SELECT old, new FROM renumbered WHERE seen != ? AND EXISTS (SELECT 1 FROM object WHERE id = old) UNION "
            "SELECT r.old, r.new FROM waiting w JOIN renumbered r ON r.old = w.new) SELECT old FROM waiting))",
            (collection, keep_waiting, Old.THERE),
        )

    def _following(self, old: ObjectId) -> ObjectId | None:
        value: ObjectId | None = self._database.value("SELECT new FROM renumbered WHERE old = ?", (old,))
        return value

    def _preceding(self, new: ObjectId) -> tuple[ObjectId, int, bool] | None:
        row = self._database.row(
            "SELECT old, seen, EXISTS (SELECT 1 FROM object WHERE id = old) FROM renumbered WHERE new = ? LIMIT 1",
            (new,),
        )
        return None if row is None else (row[0], row[1], bool(row[2]))
