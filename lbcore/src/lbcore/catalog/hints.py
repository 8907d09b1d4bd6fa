"""What is to be looked at: table ``hint``."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterable, Iterator

from lbcore.catalog.database import Database
from lbcore.model import Hint, HintFlag, ObjectId

COLLECTION = "collection"
"""Key of the number of the last collection (``Meta``)."""


class Hints:
    """Durable hints; adding one again joins the flags."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, hints: Iterable[Hint], collection: int, now_ns: int) -> None:
        """Enter hints of collection number ``collection``. Whether an object passed by is what the last one said.

        A later collection may have been entered meanwhile: that something is open, as it says, stays.
        """
        closed, opened, passing = int(HintFlag.CLOSED), int(HintFlag.OPEN), int(HintFlag.PASSING)
        self._database.execute_many(
            "INSERT INTO hint VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            f"flags = CASE WHEN excluded.flags & {closed} AND excluded.collection >= collection "
            f"THEN flags & ~{opened | passing} ELSE flags & ~{passing} END | excluded.flags, "
            "time_ns = max(time_ns, excluded.time_ns), collection = max(collection, excluded.collection)",
            ((hint.id, int(hint.flags), hint.time_ns, collection, now_ns) for hint in hints),
        )

    def drop_passing(self, collection: int) -> None:
        """Drop what passed by unknown to the catalog, as far as no later collection than ``collection`` has said so.

        Not while a run may have seen it, and not have it there yet.
        """
        self._database.execute(
            "DELETE FROM hint WHERE flags & ? AND collection <= ? "
            "AND NOT EXISTS (SELECT 1 FROM object o WHERE o.id = hint.id)",
            (int(HintFlag.PASSING), collection),
        )

    def keep(self, object_id: ObjectId, flags: HintFlag, collection: int) -> None:
        """Keep a hint for the next run."""
        now_ns = time.time_ns()
        self._database.execute(
            "INSERT INTO hint VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "flags = flags | excluded.flags, collection = max(collection, excluded.collection)",
            (object_id, int(flags), now_ns, collection, now_ns),
        )

    def keep_below(self, obj: int, flags: HintFlag, collection: int) -> None:
        """Keep a hint for everything that the catalog has below a directory."""
        now_ns = time.time_ns()
        self._database.execute(
            "WITH RECURSIVE below (obj) AS (SELECT obj FROM name WHERE parent = :obj UNION "
            "SELECT n.obj FROM below b JOIN name n ON n.parent = b.obj) "
            "INSERT INTO hint SELECT o.id, :flags, :now, :collection, :now FROM below b JOIN object o ON o.obj = b.obj "
            "WHERE 1 ON CONFLICT (id) DO UPDATE SET flags = flags | excluded.flags, collection = excluded.collection",
            {"obj": obj, "flags": int(flags), "now": now_ns, "collection": collection},
        )

    def restart_captured(self, failed: int, now_ns: int) -> None:
        """A run is committed: what it captured waits for its next state from now on.

        :param failed: the state of the steps of what it could not capture.
        """
        self._database.execute(
            "UPDATE hint SET since_ns = ? WHERE id NOT IN (SELECT id FROM step WHERE state = ?)", (now_ns, failed)
        )

    def flags(self, object_id: ObjectId) -> HintFlag:
        """The flags of the hint for an object; none when there is no hint."""
        return HintFlag(self._database.value("SELECT flags FROM hint WHERE id = ?", (object_id,)) or 0)

    def has(self, flags: HintFlag) -> bool:
        """Whether any hint has one of these flags."""
        return self._database.value("SELECT 1 FROM hint WHERE flags & ? LIMIT 1", (int(flags),)) is not None

    def since_ns(self, object_id: ObjectId) -> int | None:
        """Since when an object waits to be captured, or None."""
        value: int | None = self._database.value("SELECT since_ns FROM hint WHERE id = ?", (object_id,))
        return value

    def count(self) -> int:
        """How many objects wait."""
        return int(self._database.value("SELECT count(*) FROM hint"))

    def all(self) -> Iterator[Hint]:
        """Every hint, in id order; what was renumbered comes last, after all that it may have been called before."""
        for renumbered in ("NOT IN", "IN"):
            yield from self._where(f"id {renumbered} (SELECT new FROM renumbered)")

    def written_since(self, time_ns: int) -> Iterator[Hint]:
        """What has a data record that is not older, by the feed's clock; in id order."""
        return self._where(f"flags & {HintFlag.DATA:d} AND time_ns >= {time_ns:d}")

    def _where(self, condition: str) -> Iterator[Hint]:
        sql = f"SELECT id, flags, time_ns FROM hint WHERE id > ? AND {condition} ORDER BY id LIMIT ?"
        for page in self._database.pages(sql, (b"",), 10_000, slice(0, 1)):
            for object_id, flags, time_ns in page:
                yield Hint(id=object_id, flags=HintFlag(flags), time_ns=time_ns)

    def directories(self, flags: HintFlag) -> Iterator[int]:
        """The numbers of the hinted directories that the catalog knows and whose hint has one of these flags."""
        sql = (
            "SELECT o.obj FROM hint h CROSS JOIN object o ON o.id = h.id "
            f"WHERE h.flags & ? AND (o.mode & {0o170000:d}) = {stat.S_IFDIR:d}"
        )
        yield from (obj for (obj,) in self._database.execute(sql, (int(flags),)).fetchall())

    def drop_used(self, collection: int, *, racy_from_ns: int, open_from_ns: int) -> None:
        """Drop what no later collection than ``collection`` has touched.

        What was written to after ``racy_from_ns`` stays, and what was opened for writing after ``open_from_ns`` and
        not closed: no record may tell of what is written next.
        """
        self._database.execute(
            "DELETE FROM hint WHERE collection <= :collection AND time_ns < CASE "
            "WHEN flags & :open THEN :open_from WHEN flags & :data THEN :racy_from ELSE time_ns + 1 END",
            {
                "collection": collection, "open": int(HintFlag.OPEN), "data": int(HintFlag.DATA),
                "open_from": open_from_ns, "racy_from": racy_from_ns,
            },
        )  # fmt: skip
