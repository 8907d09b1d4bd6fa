"""Objects, now and at each run: tables ``object`` and ``object_past``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lbcore.catalog.database import Database
from lbcore.catalog.schema import OBJECT_COLUMNS, WITHOUT_CONTENT
from lbcore.model import ObjectId

ROOT = 1
"""The number of the job's root directory."""


class Row(NamedTuple):
    """One object as the catalog knows it; the fields are the columns of ``schema.OBJECT_COLUMNS``."""

    obj: int
    id: ObjectId
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    rdev: int
    mount: int
    link_target: bytes | None
    extras: int | None
    digest: bytes | None
    data_run: int | None


_CURRENT = f"SELECT obj, {OBJECT_COLUMNS} FROM object"
_AT = (
    f"SELECT obj, {OBJECT_COLUMNS} FROM object WHERE obj = :obj AND first_run <= :run UNION ALL "
    f"SELECT obj, {OBJECT_COLUMNS} FROM object_past WHERE obj = :obj AND first_run <= :run AND last_run >= :run"
)

_TOGETHER = 2_000
_LARGEST = 2**63 - 1
# In a large catalog each change of a batch lies on pages of its own. So a row is updated, not replaced, which leaves
# the index of its id alone; and parts of a batch are so small that what one statement has read is there for the next.
_PART = "FROM batch b CROSS JOIN step s ON s.obj = b.obj"
_IN_PART = "b.obj BETWEEN :first AND :last"
_REST = OBJECT_COLUMNS.removeprefix("id, ")
_OF_STEP = ", ".join(f"s.{column}" for column in OBJECT_COLUMNS.split(", "))
_OF_OBJECT = ", ".join(f"o.{column}" for column in OBJECT_COLUMNS.split(", "))
_DROP_EQUAL = (
    f"DELETE FROM batch WHERE obj IN (SELECT b.obj {_PART} CROSS JOIN object o ON o.obj = b.obj "
    f"WHERE {_IN_PART} AND ({_OF_STEP}) IS ({_OF_OBJECT}))"
)
_CLOSE = (  # What began in this very run was never part of a point in time.
    f"INSERT INTO object_past SELECT o.obj, :run - 1, {_OF_OBJECT}, o.first_run "
    f"FROM batch b CROSS JOIN object o ON o.obj = b.obj WHERE {_IN_PART} AND o.first_run < :run"
)
_UPDATE = (
    f"UPDATE object SET ({_REST}, first_run) = (SELECT {_REST}, :run FROM step s WHERE s.obj = object.obj) "
    f"WHERE obj IN (SELECT b.obj FROM batch b WHERE {_IN_PART})"
)
_RENUMBER = (
    f"UPDATE OR REPLACE object SET id = (SELECT s.id FROM step s WHERE s.obj = object.obj) WHERE obj IN "
    f"(SELECT b.obj {_PART} CROSS JOIN object o ON o.obj = b.obj WHERE {_IN_PART} AND s.id != o.id)"
)
_ADD_MISSING = (
    f"INSERT OR REPLACE INTO object SELECT s.obj, {_OF_STEP}, :run {_PART} "
    f"WHERE {_IN_PART} AND NOT EXISTS (SELECT 1 FROM object o WHERE o.obj = b.obj)"
)


class Objects:
    """Look up objects; enter the effects of a batch (table ``batch``, see ``steps``).

    CROSS JOIN keeps SQLite from reading a whole table to find the few rows of a batch.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, obj: int) -> Row | None:
        """The object now, or None."""
        row = self._database.row(f"{_CURRENT} WHERE obj = ?", (obj,))
        return None if row is None else Row(*row)

    def by_id(self, object_id: ObjectId) -> Row | None:
        """The object of this id now, or None."""
        row = self._database.row(f"{_CURRENT} WHERE id = ?", (object_id,))
        return None if row is None else Row(*row)

    def at(self, obj: int, run: int) -> Row | None:
        """The object as it was at ``run``, or None."""
        row = self._database.row(_AT, {"obj": obj, "run": run})
        return None if row is None else Row(*row)

    def any(self) -> bool:
        """Whether there is any object now."""
        return self._database.value("SELECT 1 FROM object LIMIT 1") is not None

    def count(self) -> int:
        """How many objects there are now: the longer to say, the more there are."""
        return int(self._database.value("SELECT count(*) FROM object"))

    def count_without_content(self) -> int:
        """How many files there are of which the backup holds no content."""
        return int(self._database.value(f"SELECT count(*) FROM object WHERE {WITHOUT_CONTENT}"))

    def newly_without_content(self, run: int, page_rows: int = 10_000) -> Iterator[int]:
        """Those of them that came in ``run``, or have another size or modification time since."""
        sql = (
            f"SELECT obj FROM object o WHERE obj > ? AND {WITHOUT_CONTENT} AND first_run = {run:d} AND NOT EXISTS ("
            "SELECT 1 FROM object_past p WHERE p.obj = o.obj AND p.last_run = o.first_run - 1 AND p.digest IS NULL "
            "AND p.size = o.size AND p.mtime_ns = o.mtime_ns) ORDER BY obj LIMIT ?"
        )
        for page in self._database.pages(sql, (0,), page_rows, slice(0, 1)):
            yield from (obj for (obj,) in page)

    def children(self, parent: int) -> dict[bytes, Row]:
        """The objects named in a directory now, by name."""
        cursor = self._database.execute(
            f"SELECT n.name, o.obj, {_OF_OBJECT} FROM name n JOIN object o ON o.obj = n.obj WHERE n.parent = ?",
            (parent,),
        )
        return {row[0]: Row._make(row[1:]) for row in cursor}

    def child(self, parent: int, name: bytes) -> Row | None:
        """The object of this name in a directory now, or None."""
        row = self._database.row(
            f"SELECT o.obj, {_OF_OBJECT} FROM name n JOIN object o ON o.obj = n.obj WHERE n.parent = ? AND n.name = ?",
            (parent, name),
        )
        return None if row is None else Row(*row)

    def versions(self, obj: int) -> Iterator[tuple[int, int | None, Row]]:
        """Every state of an object: (first run, last run or None, state), oldest first."""
        cursor = self._database.execute(
            f"SELECT first_run, last_run, obj, {OBJECT_COLUMNS} FROM object_past WHERE obj = :obj UNION ALL "
            f"SELECT first_run, NULL, obj, {OBJECT_COLUMNS} FROM object WHERE obj = :obj ORDER BY first_run",
            {"obj": obj},
        )
        for first, last, *row in cursor:
            yield first, last, Row._make(row)

    def changed_between(self, older: int, newer: int) -> Iterator[int]:
        """Numbers of objects with a state or a name that began or ended after ``older`` and up to ``newer``.

        What ended is found by when it ended; so a run that is about to be committed looks at none of those before.
        """
        parts = [
            "SELECT obj FROM object WHERE first_run > :older AND first_run <= :newer",
            "SELECT obj FROM object_past WHERE last_run >= :older AND last_run < :newer",
            "SELECT obj FROM object_past WHERE last_run >= :newer AND first_run > :older AND first_run <= :newer",
            "SELECT obj FROM name WHERE first_run > :older AND first_run <= :newer",
            "SELECT obj FROM name_past WHERE last_run >= :older AND last_run < :newer",
            "SELECT obj FROM name_past WHERE last_run >= :newer AND first_run > :older AND first_run <= :newer",
        ]
        for (obj,) in self._database.execute(" UNION ".join(parts), {"older": older, "newer": newer}):
            yield obj

    def put_batch(self, run: int) -> None:
        """The objects of the batch are now as their steps say. Those that already were drop out of the batch."""
        for first, last in self._parts_of_batch():
            values = {"run": run, "first": first, "last": last}
            self._database.execute(_DROP_EQUAL, values)
            self._database.execute(_CLOSE, values)
            self._database.execute(_UPDATE, values)
            self._database.execute(_RENUMBER, values)
            self._database.execute(_ADD_MISSING, values)

    def add_batch(self, run: int) -> None:
        """The objects of the batch, which were not there before, are as their steps say."""
        self._database.execute(f"INSERT OR REPLACE INTO object SELECT s.obj, {_OF_STEP}, ? {_PART}", (run,))

    def remove_batch(self, run: int) -> None:
        """The objects of the batch are gone."""
        for first, last in self._parts_of_batch():
            self._database.execute(_CLOSE, {"run": run, "first": first, "last": last})
        self._database.execute("DELETE FROM object WHERE obj IN (SELECT obj FROM batch)")

    def _parts_of_batch(self) -> Iterator[tuple[int, int]]:
        """First and last number of each part."""
        first, sql = 0, "SELECT obj FROM batch WHERE obj >= ? ORDER BY obj LIMIT 1 OFFSET ?"
        while first is not None:
            following = self._database.value(sql, (first, _TOGETHER))
            yield first, _LARGEST if following is None else following - 1
            first = following

    def content_is_kept(self, obj: int, data_run: int) -> bool:
        """Whether a point in time still shows the content that ``data_run`` brought."""
        sql = "SELECT 1 FROM object_past WHERE obj = ? AND data_run = ? LIMIT 1"
        return self._database.value(sql, (obj, data_run)) is not None

    def all_now(self, page_rows: int = 10_000) -> Iterator[Row]:
        """Every object now, in the order of their numbers."""
        sql = f"{_CURRENT} WHERE obj > ? ORDER BY obj LIMIT ?"
        for page in self._database.pages(sql, (0,), page_rows, slice(0, 1)):
            yield from map(Row._make, page)

    def largest_number(self) -> int:
        """The largest number ever given to an object."""
        parts = [f"SELECT max(obj) AS obj FROM {table}" for table in ("object", "object_past", "step")]
        return int(self._database.value(f"SELECT max(obj) FROM ({' UNION ALL '.join(parts)})") or 0)
