"""Restore what was chosen: a walk through the catalog that needs the same memory for ten files and ten million."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lbcore import _posix
from lbcore.attributes import Wish
from lbcore.beneath import Root
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import Row
from lbcore.catalog.past import Child, Past
from lbcore.copying import ReadError
from lbcore.errors import LbError, SourceError
from lbcore.held import Held
from lbcore.keeping import Keeping, lacks_content
from lbcore.progress import Progress
from lbcore.restore.crew import Crew
from lbcore.restore.selection import Chosen
from lbcore.restore.writer import DamagedError, Writer

_STOPS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE, errno.EMFILE, errno.ENFILE)
"""What ails the destination as a whole: going on would fail with every file."""


@dataclass(slots=True)
class Restored:
    """What a restore has done."""

    objects: int = 0
    files: int = 0
    size_bytes: int = 0
    damaged: int = 0
    failed: int = 0
    without_content: int = 0
    """Files whose content was never at hand in the source: the backup does not hold it, and they are not made."""
    stubs: int = 0
    """Files that were made without their content, which is elsewhere."""
    not_recreated: int = 0
    """What objects had of their filesystem, such as a layout, and do not have now."""


class Restoring:
    """Writes what was chosen. Use once: ``Restoring(...).restore(...)``."""

    def __init__(
        self,
        catalog: Catalog,
        run: int,
        held: Held,
        destination: Root,
        keeping: Keeping,
        *,
        crew: Crew | None,
        overwrite: bool,
        resume: bool,
        report: Callable[[bytes, str], None],
        progress: Progress,
    ) -> None:
        """
        :param crew: writes the files that have one name; None: that is done here, one after the other.
        """
        self._catalog = catalog
        self._past = Past(catalog.database)
        self._run = run
        self._destination = destination
        self._writer = Writer(destination, held, keeping, overwrite=overwrite, resume=resume)
        self._stubs = keeping.stubs(destination.path)
        self._crew = crew
        self._report = report
        self._progress = progress
        self._done = Restored()

    @property
    def refused(self) -> dict[str, int]:
        """How often an attribute of this name could not be set."""
        total: dict[str, int] = {}
        for refused in [self._writer.refused, *(self._crew.refused if self._crew else ())]:
            for name, count in refused.items():
                total[name] = total.get(name, 0) + count
        return total

    def restore(self, chosen: Sequence[Chosen]) -> Restored:
        """Make all of it; what cannot be restored is reported, and the rest goes on.

        :raises LbError: when the destination as a whole fails.
        """
        self._progress.stage("restore")
        with contextlib.closing(_Ledger()) as ledger:
            for one in chosen:
                names = len(self._catalog.names.of_at(one.row.obj, self._run))
                self._walk(Child(one.to, names, one.row), ledger)
            self._take_done(everything=True)
            for path, obj in ledger.directories():
                row = self._catalog.objects.at(obj, self._run)
                assert row is not None
                with self._reporting(path):
                    self._writer.finish_directory(self._wish(row), path)
            self._take_lost(self._writer.take_lost())
        _posix.syncfs(self._destination.fd)
        return self._done

    def _walk(self, top: Child, ledger: _Ledger) -> None:
        levels: list[tuple[bytes | None, Iterator[Child]]] = [(None, iter([top]))]
        while levels:
            above, children = levels[-1]
            child = next(children, None)
            if child is None:
                levels.pop()
                continue
            path = above + b"/" + child.name if above else child.name
            self._take_done(everything=False)
            with self._reporting(path):
                self._make(child, path, ledger)
                self._take_lost(self._writer.take_lost())
                if stat.S_ISDIR(child.row.mode):
                    levels.append((path, self._past.children(child.row.obj, self._run)))
                self._done.objects += 1
                self._progress.advance(1)

    def _make(self, child: Child, path: bytes, ledger: _Ledger) -> None:
        row = child.row
        if stat.S_ISDIR(row.mode):
            if self._writer.directory(path, self._wish(row)):
                ledger.add_directory(path, row.obj)
            return
        if child.names > 1:
            held = ledger.linked(row.obj)
            if held is not None and self._writer.link(held, path):
                return
        if lacks_content(row.mode, row.digest):
            if not self._make_stub(row, path):
                return
        elif self._crew is not None and child.names == 1 and stat.S_ISREG(row.mode):
            self._crew.write(row, self._wish(row), path)
            return
        elif self._writer.is_made(row, path):
            pass
        elif stat.S_ISREG(row.mode):
            self._count_file(self._writer.file(row, self._wish(row), path))
        elif not self._writer.special(row, self._wish(row), path):
            return
        if child.names > 1:
            ledger.add_linked(row.obj, path)

    def _make_stub(self, row: Row, path: bytes) -> bool:
        """A file of which the backup holds no content: whether it is there now, without."""
        why = "its content was never at hand in the source, and is not in the backup"
        if self._stubs is not None:
            try:
                self._report(path, self._writer.stub(self._stubs, row, self._wish(row), path))
            except SourceError as error:
                why += f"; {error}"
            else:
                self._done.stubs += 1
                return True
        self._done.without_content += 1
        self._report(path, f"not restored: {why}")
        return False

    def _take_done(self, *, everything: bool) -> None:
        """What the crew has written, or could not write."""
        for path, future in self._crew.done(everything=everything) if self._crew else ():
            with self._reporting(path):
                written = future.result()
                if written.size_bytes is not None:
                    self._count_file(written.size_bytes)
                self._take_lost(written.lost)

    def _count_file(self, size_bytes: int) -> None:
        self._done.files += 1
        self._done.size_bytes += size_bytes
        self._progress.advance(0, size_bytes)

    def _take_lost(self, lost: list[tuple[bytes, str]]) -> None:
        for path, what in lost:
            self._done.not_recreated += 1
            self._report(path, f"not recreated: {what}")

    def _wish(self, row: Row) -> Wish:
        extras = self._catalog.extras.get(row.extras)
        return Wish(mode=row.mode, uid=row.uid, gid=row.gid, mtime_ns=row.mtime_ns, extras=extras)

    @contextlib.contextmanager
    def _reporting(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except DamagedError as error:
            self._done.damaged += 1
            self._report(path, str(error))
        except ReadError as error:
            self._done.damaged += 1
            self._report(path, f"its content in the backup cannot be read: {error.cause.strerror}")
        except OSError as error:
            if error.errno in _STOPS:
                where = os.fsdecode(os.path.join(self._destination.path, path))
                raise LbError(
                    f"cannot write {where}: {error.strerror}; what was restored before it is complete. Mend that, then "
                    "restore again with --resume"
                ) from error
            self._done.failed += 1
            self._report(path, f"cannot be restored: {error.strerror}")


class _Ledger:
    """What has to be remembered to the end, in a temporary file: directories, and files with several names."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("CREATE TABLE linked (obj INTEGER PRIMARY KEY, path BLOB)")
        self._database.execute(
            "CREATE TABLE directory (depth INTEGER, number INTEGER, path BLOB, obj INTEGER, "
            "PRIMARY KEY (depth, number)) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")
        self._count = 0

    def linked(self, obj: int) -> bytes | None:
        """Where a file was restored that has another name, or None."""
        row = self._database.execute("SELECT path FROM linked WHERE obj = ?", (obj,)).fetchone()
        return None if row is None else bytes(row[0])

    def add_linked(self, obj: int, path: bytes) -> None:
        """A file with several names is restored at ``path``."""
        self._database.execute("INSERT OR REPLACE INTO linked VALUES (?, ?)", (obj, path))

    def add_directory(self, path: bytes, obj: int) -> None:
        """A directory was made."""
        depth = path.count(b"/") + 1 if path else 0
        self._count += 1
        self._database.execute("INSERT INTO directory VALUES (?, ?, ?, ?)", (depth, self._count, path, obj))

    def directories(self) -> Iterator[tuple[bytes, int]]:
        """Every directory, deepest first."""
        yield from self._database.execute("SELECT path, obj FROM directory ORDER BY depth DESC, number")

    def close(self) -> None:
        """Give the space back."""
        self._database.close()
