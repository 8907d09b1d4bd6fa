"""The plan of the open run: tables ``step``, ``step_name``, and what belongs to them while it is open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from lbcore.catalog.database import Database
from lbcore.catalog.objects import ROOT
from lbcore.catalog.schema import OBJECT_COLUMNS
from lbcore.model import ObjectId


class What:
    """What changes of an object: bits of ``step.what``. Plain integers: an enum costs a microsecond a step."""

    NEW: Final = 1
    GONE: Final = 2
    DATA: Final = 4
    """The content is brought."""
    COMPARE: Final = 8
    """The content is brought if its digest is another than the catalog's."""
    ATTRIBUTES: Final = 16
    NAMES: Final = 32


class State:
    """How far a step is: values of ``step.state``."""

    PLANNED: Final = 0
    LIFTED: Final = 1
    PLACED: Final = 2
    DELIVERED: Final = 3
    """The new content lies durable in the stage."""
    DONE: Final = 4
    FAILED: Final = 5
    """The source could not be read: the object stays as it was."""


class Step(NamedTuple):
    """One row of the plan: the state an object is to have."""

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
    what: int
    state: int
    old_depth: int | None
    depth: int | None
    arrived: bytes | None


class PlainFile(NamedTuple):
    """A new regular file without extended attributes, and its one name."""

    obj: int
    id: ObjectId
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    parent: int
    name: bytes


class Plan:
    """Write and read the plan."""

    def __init__(self, database: Database) -> None:
        self._database = database
        if not database.read_only:
            database.execute("CREATE TEMP TABLE IF NOT EXISTS batch (obj INTEGER PRIMARY KEY, digest BLOB)")
            columns = ", ".join(PlainFile._fields[1:])
            database.execute(f"CREATE TEMP TABLE IF NOT EXISTS plain_file (obj INTEGER PRIMARY KEY, {columns})")

    def clear(self) -> None:
        """Drop the plan (what it did already is in the catalog)."""
        for table in ("step", "step_name", "seen_listing", "seen_name"):
            self._database.execute(f"DELETE FROM {table}")

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Enter steps of objects that have none; rows hold obj, the object's columns, and ``what``.

        :raises sqlite3.IntegrityError: when an object or id has a step already.
        """
        self._database.execute_many(
            f"INSERT INTO step (obj, {OBJECT_COLUMNS}, what, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            rows,
        )

    def add_plain(self, files: Iterable[PlainFile]) -> None:
        """The same for new regular files without extended attributes, each with the one name it gains.

        A first backup is made of them. Filling one narrow table and copying from it takes half the time, and most of
        that without the interpreter's lock, while the source is read.

        :raises sqlite3.IntegrityError: when an object or id has a step already.
        """
        self._database.execute_many("INSERT INTO plain_file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", files)
        self._database.execute(
            "INSERT INTO step (obj, id, mode, uid, gid, size, mtime_ns, ctime_ns, rdev, mount, what, state) "
            "SELECT obj, id, mode, uid, gid, size, mtime_ns, ctime_ns, 0, 0, "
            f"{What.NEW | What.DATA:d}, {State.PLANNED:d} FROM plain_file"
        )
        self._database.execute("INSERT OR REPLACE INTO step_name SELECT 1, parent, name, obj FROM plain_file")
        self._database.execute("DELETE FROM plain_file")

    def put(self, row: tuple[Any, ...]) -> None:
        """Enter a step, or join it with the one the object has."""
        settings = ", ".join(f"{column} = excluded.{column}" for column in OBJECT_COLUMNS.split(", "))
        self._database.execute(
            f"INSERT INTO step (obj, {OBJECT_COLUMNS}, what, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) "
            f"ON CONFLICT (obj) DO UPDATE SET {settings}, what = (what & ~{What.GONE:d}) | excluded.what",
            row,
        )

    def number_of(self, object_id: ObjectId) -> int | None:
        """The number of the object of this id that has a step, or None."""
        value: int | None = self._database.value("SELECT obj FROM step WHERE id = ?", (object_id,))
        return value

    def gain_name(self, parent: int, name: bytes, obj: int) -> None:
        """An object is seen at a name it did not have."""
        self._database.execute("INSERT OR REPLACE INTO step_name VALUES (1, ?, ?, ?)", (parent, name, obj))

    def gain_names(self, rows: Iterable[tuple[int, bytes, int]]) -> None:
        """The same for many (parent, name, obj)."""
        self._database.execute_many("INSERT OR REPLACE INTO step_name VALUES (1, ?, ?, ?)", rows)

    def lose_name(self, parent: int, name: bytes, obj: int) -> None:
        """An object is no longer seen at a name it had."""
        self._database.execute("INSERT OR REPLACE INTO step_name VALUES (0, ?, ?, ?)", (parent, name, obj))

    def forget_directory(self, parent: int) -> None:
        """A directory is listed anew: what its first listing said does not count."""
        self._database.execute("DELETE FROM step_name WHERE parent = ?", (parent,))
        self._database.execute("DELETE FROM seen_listing WHERE obj = ?", (parent,))
        self._database.execute("DELETE FROM seen_name WHERE parent = ?", (parent,))

    def keep_lost_names(self, parent: int) -> None:
        """What this directory lost stays in it, unless it was seen elsewhere or its name is another's now."""
        self._database.execute(
            "DELETE FROM step_name WHERE parent = :parent AND gained = 0 "
            "AND name NOT IN (SELECT name FROM step_name WHERE parent = :parent AND gained = 1) "
            "AND obj NOT IN (SELECT obj FROM step_name WHERE gained = 1)",
            {"parent": parent},
        )

    def new_without_name(self) -> list[int]:
        """New objects whose only name was seen no more when their directory was listed again."""
        sql = (
            f"SELECT obj FROM step WHERE what & {What.NEW:d} AND obj != {ROOT:d} "
            "AND obj NOT IN (SELECT obj FROM step_name WHERE gained = 1)"
        )
        return [obj for (obj,) in self._database.execute(sql)]

    def gone_gaining_names(self) -> list[int]:
        """Directories that are gone and in which something was seen later, or earlier."""
        sql = (
            "SELECT DISTINCT n.parent FROM step_name n JOIN step s ON s.obj = n.parent "
            f"WHERE n.gained = 1 AND s.what & {What.GONE:d}"
        )
        return [obj for (obj,) in self._database.execute(sql)]

    def directories_gaining_names(self) -> list[int]:
        """Directories that are seen at a name they did not have."""
        sql = (
            "SELECT DISTINCT obj FROM step JOIN step_name USING (obj) "
            f"WHERE gained = 1 AND (mode & {0o170000:d}) = {0o040000:d}"
        )
        return [obj for (obj,) in self._database.execute(sql)]

    def forget_names(self, obj: int) -> None:
        """An object is looked at again: of its names only those count as lost that another one gets."""
        self._database.execute(
            "DELETE FROM step_name WHERE obj = :obj AND (gained = 1 OR NOT EXISTS (SELECT 1 FROM step_name g "
            "WHERE g.gained = 1 AND g.parent = step_name.parent AND g.name = step_name.name))",
            {"obj": obj},
        )

    def gaining(self, parent: int, name: bytes) -> int | None:
        """The object that gets this name, or None."""
        sql = "SELECT obj FROM step_name WHERE gained = 1 AND parent = ? AND name = ?"
        value: int | None = self._database.value(sql, (parent, name))
        return value

    def keep_name(self, parent: int, name: bytes, obj: int) -> None:
        """An object does not lose this name."""
        sql = "DELETE FROM step_name WHERE gained = 0 AND parent = ? AND name = ? AND obj = ?"
        self._database.execute(sql, (parent, name, obj))

    def drop_gained(self, parent: int, name: bytes) -> None:
        """Nobody gets this name."""
        self._database.execute("DELETE FROM step_name WHERE gained = 1 AND parent = ? AND name = ?", (parent, name))

    def drop_gained_in(self, parent: int) -> list[int]:
        """Nobody gets a name in this directory; returns the objects that would have."""
        values = (parent,)
        rows = self._database.execute("SELECT obj FROM step_name WHERE gained = 1 AND parent = ?", values).fetchall()
        self._database.execute("DELETE FROM step_name WHERE gained = 1 AND parent = ?", values)
        return [obj for (obj,) in rows]

    def names(self, obj: int, *, gained: bool) -> list[tuple[int, bytes]]:
        """The names an object gains, or loses, as (parent, name)."""
        sql = "SELECT parent, name FROM step_name WHERE obj = ? AND gained = ? ORDER BY parent, name"
        return self._database.execute(sql, (obj, gained)).fetchall()

    def total_bytes(self, condition: str) -> int:
        """Bytes of content of the steps that fulfil an SQL condition written in this program."""
        return int(self._database.value(f"SELECT total(size) FROM step WHERE {condition}"))

    def losing_names(self) -> list[int]:
        """The objects that lose a name."""
        sql = "SELECT DISTINCT obj FROM step_name WHERE gained = 0"
        return [obj for (obj,) in self._database.execute(sql)]

    def lose_children(self, directory: int) -> list[int]:
        """Every name in a directory is lost with it; returns the objects that had them."""
        self._database.execute(
            "INSERT OR IGNORE INTO step_name SELECT 0, parent, name, obj FROM name WHERE parent = ?",
            (directory,),
        )
        sql = "SELECT DISTINCT obj FROM name WHERE parent = ?"
        return [obj for (obj,) in self._database.execute(sql, (directory,))]

    def unsettled(self, page_rows: int = 10_000) -> Iterator[Step]:
        """Every step but those of new files with content."""
        new_file = int(What.NEW | What.DATA)
        sql = f"SELECT * FROM step WHERE obj > ? AND what & {new_file} != {new_file} ORDER BY obj LIMIT ?"
        for page in self._database.pages(sql, (0,), page_rows, slice(0, 1)):
            yield from map(Step._make, page)

    def step(self, obj: int) -> Step | None:
        """The step of an object, or None."""
        row = self._database.row("SELECT * FROM step WHERE obj = ?", (obj,))
        return None if row is None else Step._make(row)

    def count(self, condition: str = "1") -> int:
        """How many steps fulfil an SQL condition written in this program."""
        return int(self._database.value(f"SELECT count(*) FROM step WHERE {condition}"))

    def to_lift(self, rows: int) -> list[Step]:
        """The next objects that leave names, deepest first."""
        return self._select(
            f"old_depth IS NOT NULL AND state = {State.PLANNED:d} ORDER BY old_depth DESC, obj LIMIT ?", rows
        )

    def to_place(self, rows: int) -> list[Step]:
        """The next objects that get names (but new files, whose content comes first), shallowest first."""
        return self._select(f"depth IS NOT NULL AND state < {State.PLACED:d} ORDER BY depth, obj LIMIT ?", rows)

    def known_content(self, flag: int, after: int, rows: int) -> list[Step]:
        """The next steps with ``flag`` of files that the mirror has, after object ``after``: they wait for content."""
        return self._select(
            f"what & {flag:d} AND NOT what & {What.NEW:d} AND state < {State.DELIVERED:d} AND obj > ? "
            "ORDER BY obj LIMIT ?",
            after,
            rows,
        )

    def new_content(self, after: int, rows: int) -> list[tuple[Any, ...]]:
        """The next new files that wait for content, after object ``after``; one row for each name.

        Columns: obj, id, mode, uid, gid, size, mtime_ns, ctime_ns, rdev, extras, parent, name.
        """
        new_file = int(What.NEW | What.DATA)
        sql = (
            "SELECT s.*, n.parent, n.name FROM "
            "(SELECT obj, id, mode, uid, gid, size, mtime_ns, ctime_ns, rdev, extras FROM step "
            f"WHERE what & {new_file} = {new_file} AND state < {State.DELIVERED:d} AND obj > ? ORDER BY obj LIMIT ?) s "
            "CROSS JOIN step_name n ON n.obj = s.obj AND n.gained = 1 ORDER BY s.obj, n.parent, n.name"
        )
        return self._database.execute(sql, (after, rows)).fetchall()

    def delivered(self, rows: int) -> list[Step]:
        """The next steps whose content waits in the stage."""
        return self._select(f"state = {State.DELIVERED:d} ORDER BY obj LIMIT ?", rows)

    def to_finish(self, after: int, rows: int) -> list[Step]:
        """The next steps that only need their attributes set; directories are not among them."""
        return self._select(
            f"state < {State.DELIVERED:d} AND (mode & {0o170000:d}) != {0o040000:d} AND obj > ? ORDER BY obj LIMIT ?",
            after,
            rows,
        )

    def all(self, page_rows: int = 10_000) -> Iterator[Step]:
        """Every step, in the order of the objects' numbers."""
        sql = "SELECT * FROM step WHERE obj > ? ORDER BY obj LIMIT ?"
        for page in self._database.pages(sql, (0,), page_rows, slice(0, 1)):
            yield from map(Step._make, page)

    def _select(self, condition: str, *values: Any) -> list[Step]:
        return [Step._make(row) for row in self._database.execute(f"SELECT * FROM step WHERE {condition}", values)]

    def set_batch(self, objects: Iterable[int], digests: bytes | None = None) -> None:
        """Name the objects that the next effects are about, with the digests of content that was brought, joined.

        One statement for all of them: it runs without the interpreter's lock, while the workers go on.
        """
        # What Python prints of a list of integers is JSON.
        digest = "NULL" if digests is None else "substr(:digests, 16 * key + 1, 16)"
        values = {"objects": str(list(objects)), "digests": digests}
        self._database.execute("DELETE FROM batch")
        self._database.execute(
            f"INSERT OR IGNORE INTO batch (obj, digest) SELECT value, {digest} FROM json_each(:objects)", values
        )

    def mark_batch(self, state: int) -> None:
        """Set the state of the batch's steps."""
        self._database.execute("UPDATE step SET state = ? WHERE obj IN (SELECT obj FROM batch)", (state,))

    def mark_delivered(self, rows: Iterable[tuple[bytes, int, bytes, int]]) -> None:
        """Content has arrived: rows of (digest, run, path in the stage, obj)."""
        self._database.execute_many(
            f"UPDATE step SET digest = ?, data_run = ?, arrived = ?, state = {State.DELIVERED:d} WHERE obj = ?",
            rows,
        )

    def mark_brought(self, run: int) -> None:
        """The new files of the batch are in place."""
        self._database.execute(
            f"UPDATE step SET data_run = ?, state = {State.DONE:d}, "
            "digest = (SELECT b.digest FROM batch b WHERE b.obj = step.obj) WHERE obj IN (SELECT obj FROM batch)",
            (run,),
        )

    def mark_same(self, objects: Iterable[int]) -> None:
        """The content of these turned out to be what the backup holds."""
        flags = What.COMPARE | What.DATA
        self._database.execute_many(
            f"UPDATE step SET what = (what & ~{flags:d}) | {What.ATTRIBUTES:d} WHERE obj = ?",
            ((obj,) for obj in objects),
        )

    def mark_different(self, objects: Iterable[int]) -> None:
        """The content of these turned out to be another than the backup holds."""
        self._database.execute_many(
            f"UPDATE step SET what = (what & ~{What.COMPARE:d}) | {What.DATA:d} WHERE obj = ?",
            ((obj,) for obj in objects),
        )

    def set_what(self, obj: int, what: int, old_depth: int | None, depth: int | None) -> None:
        """Settle what a step does and where in the order it stands."""
        self._database.execute(
            "UPDATE step SET what = ?, old_depth = ?, depth = ? WHERE obj = ?",
            (what, old_depth, depth, obj),
        )

    def want_content(self, obj: int) -> None:
        """An object that stays gets its content anew, whatever a comparison would say."""
        self._database.execute(
            f"UPDATE step SET what = (what & ~{What.COMPARE:d}) | {What.DATA:d} "
            f"WHERE obj = ? AND NOT what & {What.GONE:d}",
            (obj,),
        )

    def want_comparison(self, obj: int) -> None:
        """The content of an object that stays is compared, unless it is brought anyway."""
        settled = What.COMPARE | What.DATA | What.NEW | What.GONE
        self._database.execute(
            f"UPDATE step SET what = what | {What.COMPARE:d} WHERE obj = ? AND NOT what & {settled:d}", (obj,)
        )

    def remove(self, obj: int) -> None:
        """Drop the step of an object and its names."""
        self._database.execute("DELETE FROM step WHERE obj = ?", (obj,))
        self._database.execute("DELETE FROM step_name WHERE obj = ?", (obj,))

    def write_in(self, directories: Iterable[int]) -> None:
        """These directories were written in: their own attributes are to be set again."""
        self._database.execute_many(
            "INSERT OR IGNORE INTO written_directory VALUES (?)", ((obj,) for obj in directories)
        )

    def written(self, page_rows: int = 10_000) -> Iterator[int]:
        """The directories written in."""
        sql = "SELECT obj FROM written_directory WHERE obj > ? ORDER BY obj LIMIT ?"
        for page in self._database.pages(sql, (0,), page_rows, slice(0, 1)):
            for (obj,) in page:
                yield obj

    def directories_to_finish(self) -> Iterator[int]:
        """Directories that change, or were written in."""
        sql = (
            "SELECT obj FROM (SELECT obj FROM written_directory UNION SELECT obj FROM step "
            f"WHERE state < {State.DELIVERED:d} AND (mode & {0o170000:d}) = {0o040000:d}) "
            "WHERE obj > ? ORDER BY obj LIMIT ?"
        )
        for page in self._database.pages(sql, (0,), 10_000, slice(0, 1)):
            for (obj,) in page:
                yield obj

    def begin_directories(self) -> None:
        """Start the list of directories by depth."""
        self._database.execute(
            "CREATE TEMP TABLE IF NOT EXISTS finishing (depth INTEGER, obj INTEGER, PRIMARY KEY (depth, obj)) "
            "WITHOUT ROWID"
        )
        self._database.execute("DELETE FROM finishing")

    def add_directory(self, depth: int, obj: int) -> None:
        """Add to the list."""
        self._database.execute("INSERT OR IGNORE INTO finishing VALUES (?, ?)", (depth, obj))

    def deepest_directories(self, rows: int) -> list[tuple[int, int]]:
        """The deepest directories of the list, as (depth, obj)."""
        sql = "SELECT depth, obj FROM finishing ORDER BY depth DESC, obj LIMIT ?"
        return self._database.execute(sql, (rows,)).fetchall()

    def drop_directories(self, rows: Iterable[tuple[int, int]]) -> None:
        """Take them off the list."""
        self._database.execute_many("DELETE FROM finishing WHERE depth = ? AND obj = ?", rows)

    def clear_written(self) -> None:
        """All directories have their attributes again."""
        self._database.execute("DELETE FROM written_directory")
