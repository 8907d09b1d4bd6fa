"""Open the catalog: pragmas, migrations, transactions."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lbcore.catalog.schema import MIGRATIONS
from lbcore.errors import CatalogError
from lbcore.failure import of_database

BATCH_ROWS = 100_000
"""Rows a bulk transaction holds at the most (design: safety rule 9)."""


_PATIENCE_SECONDS = 600
"""For so long one process waits for a transaction of another: a run's may be long, ``lb collect``'s are short."""
_TURN = b"-turn"
"""Beside the database: whoever wants to write takes its turn there, see ``Database._begin``."""

_CACHE = "PRAGMA cache_size = -32768"
"""32 MiB, whatever the number of files."""
_SORTING_CACHE = "PRAGMA cache_size = -8192"
"""SQLite sorts in as much memory as its cache may take, and needs both at once."""

Values = Sequence[Any] | Mapping[str, Any]
"""For the ``?`` of a statement, or its ``:name``s."""


class Database:
    """One connection. Everything runs in explicit transactions; a commit is durable when it returns.

    Several processes may write, one transaction at a time: a run, and ``lb collect`` beside it. Readers never wait.
    """

    def __init__(self, path: bytes, *, read_only: bool = False) -> None:
        """Open (unless ``read_only``: make, and migrate) the database at ``path``.

        :raises CatalogError: when it is damaged, newer than this program, or cannot be opened.
        """
        self.path = path
        self.read_only = read_only
        with contextlib.ExitStack() as on_failure:
            try:
                self._connection, frozen = self._connect(path, read_only)
                on_failure.callback(self._connection.close)
                self._turn: int | None = None
                if not read_only:
                    self._turn = os.open(path + _TURN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    on_failure.callback(os.close, self._turn)
                self._set_up(frozen)
                self._check_version(read_only)
            except sqlite3.Error as error:
                raise CatalogError(f"cannot open {of_database(error, path)}") from error
            on_failure.pop_all()

    @staticmethod
    def _connect(path: bytes, read_only: bool) -> tuple[sqlite3.Connection, bool]:
        """Also returns whether nothing can be written beside the database."""
        text = os.fsdecode(path)
        if read_only:
            # Not mode=ro: a WAL that a crash left behind must be recovered by whoever opens first.
            os.stat(path)
        frozen = read_only and not os.access(os.path.dirname(path) or b".", os.W_OK)
        if frozen:
            _check_no_journal(path)
            # SQLite cannot make the files beside the database that it shares a WAL by; here nobody can write anyway.
            text = f"file:{urllib.parse.quote(path)}?immutable=1"
        connection = sqlite3.connect(
            text, isolation_level=None, timeout=_PATIENCE_SECONDS, check_same_thread=False, uri=frozen
        )
        return connection, frozen

    def _set_up(self, frozen: bool) -> None:
        if not frozen:
            self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = FULL")
        self.execute("PRAGMA temp_store = FILE")
        self.execute("PRAGMA wal_autocheckpoint = 8192")  # pages: 32 MiB, so that bulk work is not held up
        self.execute(_CACHE)
        if self.read_only:
            self.execute("PRAGMA query_only = ON")

    def _check_version(self, read_only: bool) -> None:
        version = self.value("PRAGMA user_version")
        if version > len(MIGRATIONS):
            raise CatalogError(
                f"the catalog {os.fsdecode(self.path)} was written by a newer lb (format {version}, "
                f"this one knows up to {len(MIGRATIONS)}); use that version or a later one"
            )
        if version < len(MIGRATIONS):
            if read_only:
                raise CatalogError(
                    f"the catalog {os.fsdecode(self.path)} was written by an older lb, or its first run was cut short "
                    f"(format {version}, this lb reads {len(MIGRATIONS)}); 'lb run' brings it up to date"
                )
            self._migrate(version)

    def _migrate(self, version: int) -> None:
        with contextlib.ExitStack() as new:
            if version > 0:
                self._copy_before(version)
            else:
                new.enter_context(self.transaction())  # it is made whole, or not at all
            for number in range(version, len(MIGRATIONS)):
                # The statements and the new version are one transaction: a crash leaves the one or the other.
                with self.transaction():
                    for statement in _statements(MIGRATIONS[number]):
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA user_version = {number + 1}")

    def _copy_before(self, version: int) -> None:
        """Keep the database as it was, beside it; complete under its name or not there."""
        copy = self.path + b".before-%d" % (version + 1)
        if os.path.exists(copy):
            return
        part = copy + b".part"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        with contextlib.closing(sqlite3.connect(os.fsdecode(part))) as target:
            self._connection.backup(target)
        os.rename(part, copy)
        folder = os.open(os.path.dirname(copy) or b".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and durable when the block is left. Nested blocks belong to the outermost."""
        if self._connection.in_transaction:
            yield
            return
        self._begin()
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _begin(self) -> None:
        """Begin to write, in turn.

        SQLite lets whoever asks at the right moment write, so that a process whose transactions follow each other
        closely (a run that observes) would keep out one that looks now and then. Here that one waits at the door, and
        the next transaction of the other behind it.
        """
        assert self._turn is not None
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def rolled_back(self) -> Iterator[None]:
        """Whatever the block does is undone at its end."""
        self._begin()
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Within a transaction: undo what the block did when it raises."""
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK TO part")
            self._connection.execute("RELEASE part")
            raise
        self._connection.execute("RELEASE part")

    def execute(self, sql: str, values: Values = ()) -> sqlite3.Cursor:
        """One statement."""
        return self._connection.execute(sql, values)

    def execute_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> int:
        """One statement for each row; returns the number of rows changed."""
        return self._connection.executemany(sql, rows).rowcount

    def row(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""
        row: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
        return row

    def value(self, sql: str, values: Values = ()) -> Any:
        """The first column of the first row, or None."""
        row = self.row(sql, values)
        return None if row is None else row[0]

    def pages(self, sql: str, after: tuple[Any, ...], size: int, key: slice) -> Iterator[list[tuple[Any, ...]]]:
        """Read a long result in pages, each its own short query, so that no read holds up the WAL.

        ``sql`` takes the values of ``after`` (replaced by columns ``key`` of the last row) and then the page size.
        """
        while True:
            rows = self._connection.execute(sql, (*after, size)).fetchall()
            if not rows:
                return
            yield rows
            after = rows[-1][key]

    @contextlib.contextmanager
    def sorting(self) -> Iterator[None]:
        """A transaction in which much is sorted: an index of a large table."""
        self.execute(_SORTING_CACHE)
        try:
            with self.transaction():
                yield
        finally:
            self.execute(_CACHE)

    def attach(self, path: bytes, name: str) -> contextlib.AbstractContextManager[None]:
        """Another database file under ``name``, for the time of the block."""
        return self._attached(path, name)

    @contextlib.contextmanager
    def _attached(self, path: bytes, name: str) -> Iterator[None]:
        self._connection.execute(f"ATTACH DATABASE ? AS {name}", (os.fsdecode(path),))
        try:
            yield
        finally:
            self._connection.execute(f"DETACH DATABASE {name}")

    def close(self) -> None:
        """Close the connection; the WAL is folded into the database."""
        self._connection.close()
        if self._turn is not None:
            os.close(self._turn)
            self._turn = None


def _check_no_journal(path: bytes) -> None:
    """A database that cannot be written beside must be complete in itself.

    :raises CatalogError: when a part of it still lies in its WAL.
    """
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path + b"-wal").st_size:
            name = os.fsdecode(path)
            raise CatalogError(
                f"the catalog {name} cannot be read where nothing can be written, since a part of it lies in "
                f"{name}-wal; copy both to a folder on a writable disk and set state_dir to that folder"
            )


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: ``executescript`` would commit before the first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
