"""Where the backup holds the content of a file, whatever a run is doing to it at the moment."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator

from lbcore.beneath import Root
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.names import Paths
from lbcore.catalog.objects import ROOT, Row
from lbcore.copying import ReadError
from lbcore.errors import TargetError
from lbcore.holder import lock_holder
from lbcore.target import LB, TREE, fan

_WAITS_SECONDS = (0.0, 0.0, 0.2, 1.0, 3.0)
"""How long to wait before each look for content that is not where it was: something may just be moving it."""


class Held:
    """Opens contents for reading. Needs no lock, and nothing in the backup is changed.

    (An ordinary user's file that even its owner may not read is made readable while it is opened.)
    """

    def __init__(self, target: bytes, catalog: Catalog) -> None:
        """Open the folders of a target.

        :raises TargetError: when they are not there.
        """
        self._catalog = catalog
        self._paths = Paths(catalog.names)
        self._lock = os.path.join(target, LB, b"lock")
        try:
            self.tree = Root(os.path.join(target, TREE))
            self.lb = Root(os.path.join(target, LB))
        except OSError as error:
            raise TargetError(
                f"the backup {os.fsdecode(target)} cannot be read: {error.strerror}; is it mounted, and readable by "
                "this user?"
            ) from error

    def close(self) -> None:
        """Close the folders."""
        self.tree.close()
        self.lb.close()

    def contents(self, row: Row) -> Iterator[int]:
        """Open files that should hold the content of this state, one after the other, each at most once.

        Take the first whose digest is right and look no further: each is closed when the next is asked for.

        :raises ReadError: when one is there and cannot be opened.
        """
        tried: set[tuple[int, ...]] = set()
        for attempt, seconds in enumerate(_WAITS_SECONDS):
            if seconds:
                if lock_holder(self._lock) is None:
                    return
                time.sleep(seconds)
            for root, path in self._usual_places(row) if attempt == 0 else self._places(row):
                try:
                    fd = _open(root, path)
                except OSError as error:
                    raise ReadError(error) from error
                if fd is None:
                    continue
                try:
                    now = os.fstat(fd)
                    key = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
                    if stat.S_ISREG(now.st_mode) and key not in tried:
                        tried.add(key)
                        yield fd
                finally:
                    os.close(fd)

    def _usual_places(self, row: Row) -> Iterator[tuple[Root, bytes]]:
        """The one place, when no run is at work on this object."""
        now = self._catalog.objects.get(row.obj)
        if now is None or now.data_run != row.data_run:
            yield self.lb, version_path(row)
            return
        for path in self._paths.of(row.obj):
            yield self.tree, path

    def _places(self, row: Row) -> Iterator[tuple[Root, bytes]]:
        """Every place where it can be while a run is at work, or was cut short: the catalog follows in batches."""
        self._paths.forget()
        yield self.lb, version_path(row)
        at_work = self._catalog.runs.open() is not None
        waiting = [(row.obj, b"")]
        while waiting:
            obj, below = waiting.pop()
            if obj == ROOT:
                yield self.tree, below
                continue
            names = self._catalog.names.of(obj)
            if at_work:
                place = b"stage/%s/%d" % (fan(obj), obj)
                yield self.lb, place + b"/" + below if below else place
                names += self._catalog.plan.names(obj, gained=True)
            waiting += [(parent, name + b"/" + below if below else name) for parent, name in dict.fromkeys(names)]


def version_path(row: Row) -> bytes:
    """Where content that is no longer in the mirror is kept, relative to ``.lb``."""
    return b"versions/%s/%d.%d" % (fan(row.obj), row.obj, row.data_run or 0)


def _open(root: Root, path: bytes) -> int | None:
    """A descriptor to read from, or None where nothing is."""
    try:
        # Nothing is waited for when something else has taken the file's name, such as a pipe.
        return root.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        if os.geteuid() == 0:
            raise
        return _open_shut(root, path)
    except OSError:
        if not _is_file(root, path):
            return None
        raise


def _is_file(root: Root, path: bytes) -> bool:
    try:
        fd = root.open(path, os.O_PATH)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _open_shut(root: Root, path: bytes) -> int | None:
    """The same where even the owner may not enter a directory or read the file: the mirror has the source's modes."""
    with contextlib.ExitStack() as stack:
        at = root.fd
        for name in path.split(b"/"):
            try:
                at = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=at)
            except (FileNotFoundError, NotADirectoryError):
                return None
            stack.callback(os.close, at)
            mode = stat.S_IMODE(os.fstat(at).st_mode)
            needed = 0o100 if stat.S_ISDIR(os.fstat(at).st_mode) else 0o400
            if not mode & needed:
                itself = b"/proc/self/fd/%d" % at
                os.chmod(itself, mode | needed)
                stack.callback(os.chmod, itself, mode)
        return os.open(b"/proc/self/fd/%d" % at, os.O_RDONLY | os.O_NONBLOCK)
