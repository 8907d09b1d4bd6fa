"""Questions about a point in time that span tables: what a directory held, who had a name, what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lbcore.catalog.database import Database
from lbcore.catalog.objects import Row
from lbcore.catalog.schema import OBJECT_COLUMNS

_PAGE_ROWS = 1_000
_COLUMNS = ", ".join(f"o.{column}" for column in OBJECT_COLUMNS.split(", "))
# How many names an object had: more than one makes it a group of hard links.
_NAMES = (
    "CASE WHEN o.mode & 61440 = 16384 THEN 1 ELSE "  # a directory has one
    "(SELECT count(*) FROM name WHERE obj = n.obj AND first_run <= :run) + "
    "(SELECT count(*) FROM name_past WHERE obj = n.obj AND first_run <= :run AND last_run >= :run) END"
)
_CHILDREN = (
    "WITH n AS ("
    "SELECT name, obj FROM name WHERE parent = :parent AND name > :after AND first_run <= :run UNION ALL "
    "SELECT name, obj FROM name_past WHERE parent = :parent AND name > :after AND first_run <= :run "
    "AND last_run >= :run "
    "ORDER BY name LIMIT :rows) "
    f"SELECT n.name, {_NAMES}, o.obj, {_COLUMNS} FROM n JOIN object o ON o.obj = n.obj AND o.first_run <= :run "
    f"UNION ALL SELECT n.name, {_NAMES}, o.obj, {_COLUMNS} FROM n "
    "JOIN object_past o ON o.obj = n.obj AND o.first_run <= :run AND o.last_run >= :run ORDER BY 1"
)
_HOLDERS = (
    "SELECT first_run, last_run, obj FROM name_past WHERE parent = :parent AND name = :name UNION ALL "
    "SELECT first_run, NULL, obj FROM name WHERE parent = :parent AND name = :name ORDER BY 1"
)
_KEPT = (
    f"SELECT o.obj, {_COLUMNS}, o.first_run, o.last_run FROM object_past o "
    "WHERE (o.obj, o.last_run) > (?, ?) AND o.data_run IS NOT NULL AND NOT EXISTS "
    "(SELECT 1 FROM object c WHERE c.obj = o.obj AND c.data_run = o.data_run) ORDER BY o.obj, o.last_run LIMIT ?"
)


class Child(NamedTuple):
    """A name in a directory at a point in time."""

    name: bytes
    names: int
    """How many names the object had then."""
    row: Row


class Totals(NamedTuple):
    """How much there is."""

    objects: int
    files: int
    size_bytes: int


class Past:
    """Reads in pages: no query lasts longer than its page, however long the caller takes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def children(self, parent: int, run: int) -> Iterator[Child]:
        """What a directory held at ``run``, by name."""
        after = b""
        while page := self._database.execute(
            _CHILDREN, {"parent": parent, "run": run, "after": after, "rows": _PAGE_ROWS}
        ).fetchall():
            for name, names, *row in page:
                yield Child(name, names, Row._make(row))
            after = page[-1][0]

    def holders(self, parent: int, name: bytes) -> list[tuple[int, int | None, int]]:
        """Who had a name: (first run, last run or None, object), oldest first."""
        return self._database.execute(_HOLDERS, {"parent": parent, "name": name}).fetchall()

    def kept_versions(self) -> Iterator[tuple[Row, int, int]]:
        """Each content that only ``.lb/versions`` holds, once: a state that shows it, with its first and last run."""
        seen = None
        for page in self._database.pages(_KEPT, (0, 0), _PAGE_ROWS, slice(0, 16, 15)):
            for *columns, first, last in page:
                row = Row._make(columns)
                if (row.obj, row.data_run) != seen:
                    yield row, first, last
                seen = row.obj, row.data_run

    def totals_now(self) -> Totals:
        """What the mirror holds. Reads the whole table."""
        files = "mode & 61440 = 32768"
        row = self._database.row(f"SELECT count(*), total({files}), total(size * ({files})) FROM object")
        assert row is not None
        return Totals(*map(int, row))

    def totals_kept(self) -> Totals:
        """What ``.lb/versions`` holds, by the catalog."""
        row = self._database.row(
            "SELECT count(*), count(*), total(size) FROM (SELECT DISTINCT obj, data_run, size FROM object_past p "
            "WHERE data_run IS NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM object o WHERE o.obj = p.obj AND o.data_run = p.data_run))"
        )
        assert row is not None
        return Totals(*map(int, row))
