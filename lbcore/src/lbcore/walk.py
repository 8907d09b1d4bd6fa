"""Walk a view: list directories, in parallel, and say which of them are not as the catalog holds them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import NamedTuple

from lbcore import _posix
from lbcore.beneath import Root
from lbcore.model import Attributes, Entry, Listing, ObjectId, Seen, Unreadable, View
from lbcore.plugins.types import Known, Pacing
from lbcore.scope import Scope
from lbcore.spill import SpillList, SpillStack

_PART = 50_000
"""Entries of one directory that are held at once."""
_TOGETHER = 16
"""Directories read in one task: a task costs as much as reading a small directory."""
_TICK_NS = 20_000_000
"""A time stamp younger than this may be given again to a later change (coarse clocks tick every 1 to 10 ms)."""
_OPERATIONS = 3
"""What a directory asks of its server, besides a look at each entry: opening, reading, closing."""
_ROUNDS = 5
"""How often a directory that keeps changing is read again before it is left for the next run."""


class _Directory(NamedTuple):
    """A directory to be read."""

    path: bytes
    id: ObjectId
    salt: int
    """Goes into the ids of what is in it: 0, or another value for another filesystem."""


class _Reading(NamedTuple):
    """What a worker found."""

    directory: _Directory
    read_ns: int
    """When reading began."""
    error: str | None = None
    vanished: bool = False
    """True when it is not there any more; its parent, which has changed too, tells what became of it."""
    same: bool = False
    """True when the catalog holds exactly this."""
    listing: _posix.DirectoryListing | None = None
    """None when ``same``, or when there are too many entries to hold at once."""
    fingerprint: int = 0
    subdirectories: Sequence[tuple[_Directory, bool]] = ()
    """With True for mount points."""
    failed: Sequence[tuple[bytes, int]] = ()
    """(name, errno) of entries that could not be looked at."""
    newest_ns: int = 0
    """Latest ctime in it."""
    mtime_ns: int = 0
    ctime_ns: int = 0
    device: int = 0


class Walker:
    """Lists everything below a directory of a view, each directory once (a live one until it holds still)."""

    def __init__(
        self,
        view: View,
        scope: Scope,
        known: Known,
        *,
        racy_seconds: float,
        workers: int,
        pacing: Pacing | None = None,
    ) -> None:
        """
        :param pacing: waited for before directories are read, and before each entry is looked at.
        """
        self._view = view
        self._scope = scope
        self._known = known
        self._racy_ns = int(racy_seconds * 1e9)
        self._workers = workers
        self._pacing = pacing
        self._given_up = False
        self._seen = SpillList()
        self._first: ObjectId | None = None
        self.reached = False
        """Whether the directory that the walk began with could be listed."""
        self._into: Callable[[ObjectId], bool] = lambda directory_id: True

    def walk(
        self, path: bytes, directory_id: ObjectId, into: Callable[[ObjectId], bool] = lambda directory_id: True
    ) -> Iterator[Seen]:
        """Yield the listings of ``path`` (relative to the view) and of every directory below it.

        :param into: which of the directories below are listed too.
        """
        self._into = into
        self._first = directory_id
        started_ns = time.time_ns()
        with (
            contextlib.closing(self),
            ThreadPoolExecutor(self._workers, thread_name_prefix="lb-walk") as pool,
        ):
            yield from self._pass(pool, [_Directory(path, directory_id, 0)], again=False)
            if self._view.stable:
                return
            for _ in range(_ROUNDS):
                changed = self._changed_since_read()
                if not changed:
                    return
                time.sleep(_TICK_NS / 1e9)  # so that the new listings are younger than what they hold
                yield from self._pass(pool, changed, again=True, since_ns=started_ns)
            for directory in self._changed_since_read():
                yield Unreadable(
                    path=directory.path,
                    reason="kept changing while it was listed",
                    directory=directory.id,
                    moving=True,
                )

    def close(self) -> None:
        """Give the space of the walk back."""
        self._seen.close()

    def _pass(
        self, pool: ThreadPoolExecutor, start: list[_Directory], *, again: bool, since_ns: int = 0
    ) -> Iterator[Seen]:
        """Read ``start`` and what is below; with ``since_ns`` only what came there since."""
        stack = SpillStack()
        for directory in start:
            stack.push(tuple(directory))
        pending: deque[Future[list[_Reading]]] = deque()
        try:
            while True:
                while len(pending) < 2 * self._workers and (tasks := self._take(stack)):
                    pending.append(pool.submit(self._read_some, tasks))
                if not pending:
                    return
                for reading in pending.popleft().result():
                    for subdirectory, mount in reading.subdirectories:
                        if mount and self._scope.one_filesystem:
                            yield Listing(
                                directory=subdirectory.id,
                                path=subdirectory.path,
                                entries=[],
                                fingerprint=None,
                            )
                        elif self._into(subdirectory.id) and (not since_ns or self._came_since(subdirectory, since_ns)):
                            stack.push(tuple(subdirectory))
                    yield from self._report(reading, again)
        finally:
            self._given_up = bool(pending)  # who waits for his turn does not go on
            for future in pending:
                future.cancel()
            stack.close()

    def _take(self, stack: SpillStack) -> list[tuple[_Directory, int | None]]:
        tasks: list[tuple[_Directory, int | None]] = []
        while len(tasks) < _TOGETHER and (item := stack.pop()) is not None:
            directory = _Directory._make(item)
            tasks.append((directory, self._known.fingerprint(directory.id)))
        return tasks

    def _came_since(self, directory: _Directory, since_ns: int) -> bool:
        """Whether a directory found by reading its parent again may be new there: a rename sets its ctime."""
        self._wait(directory)
        try:
            with Root(self._view.root) as root:
                fd, name = root.parent(directory.path)
                return _posix.look(fd, name)[7] >= since_ns - _TICK_NS
        except OSError:
            return False

    def _wait(self, directory: _Directory, operations: int = _OPERATIONS) -> None:
        """Until so much may be asked. What is mounted below the source is on other servers than it."""
        if self._pacing is None or directory.salt:
            return
        if self._given_up:
            raise CancelledError
        self._pacing(directory.id, operations)

    def _before(self, directory: _Directory) -> Callable[[], None] | None:
        """What is called before each entry is looked at."""
        return None if self._pacing is None or directory.salt else lambda: self._wait(directory, 1)

    def _read_some(self, tasks: list[tuple[_Directory, int | None]]) -> list[_Reading]:
        with Root(self._view.root, keep=1) as root:
            return [self._read(root, directory, fingerprint) for directory, fingerprint in tasks]

    def _read(self, root: Root, directory: _Directory, expected: int | None) -> _Reading:
        self._wait(directory)
        nothing = _Reading(directory, time.time_ns())
        try:
            fd = root.open(directory.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            vanished = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
            return nothing._replace(error=error.strerror, vanished=vanished)
        try:
            own = _posix.look(fd, b"", directory.salt)
            if own[0] != directory.id:
                return nothing._replace(error="was replaced while it was looked at", vanished=True)
            return self._read_open(fd, nothing, own, expected)
        except OSError as error:
            return nothing._replace(error=error.strerror)
        finally:
            os.close(fd)

    def _read_open(self, fd: int, nothing: _Reading, own: _posix.Fields, expected: int | None) -> _Reading:
        directory = nothing.directory
        device, total, newest = own[9], self._scope.fingerprint_of(directory.path), 0
        subdirectories: list[tuple[_Directory, bool]] = []
        failed: list[tuple[bytes, int]] = []
        parts, before = 0, self._before(directory)
        while True:
            listing = _posix.read_directory(fd, device, self._known.seed, directory.salt, _PART, before)
            parts += 1
            total += listing.fingerprint
            newest = max(newest, listing.newest_ns)
            for name, error, fields in listing.directories():
                if fields is None:
                    failed.append((name, error))
                    continue
                path = directory.path + b"/" + name if directory.path else name
                if self._scope.excludes(path, True):
                    continue
                mount = fields[9] != device
                salt = mount_salt(path) if mount else directory.salt
                found = _posix.look(fd, name, salt) if mount else fields
                subdirectories.append((_Directory(path, found[0], salt), mount))
            if listing.complete:
                break
        fingerprint = total % (1 << 128)
        same = fingerprint == expected and not failed
        large = parts > 1
        if not same and not large:
            listing.find_xattrs(fd, before)
        return nothing._replace(
            same=same,
            listing=None if same or large else listing,
            fingerprint=fingerprint,
            subdirectories=subdirectories,
            failed=failed,
            newest_ns=newest,
            mtime_ns=own[6],
            ctime_ns=own[7],
            device=device,
        )

    def _report(self, reading: _Reading, again: bool) -> Iterator[Seen]:
        """Turn what a worker found into listings."""
        directory = reading.directory
        if reading.error is not None:
            if self._view.stable or not reading.vanished:
                yield Unreadable(path=directory.path, reason=reading.error, directory=directory.id)
            return
        self.reached |= directory.id == self._first
        if not self._view.stable:
            self._seen.append((*directory, reading.mtime_ns, reading.ctime_ns, reading.read_ns))
        for name, error in reading.failed:
            path = directory.path + b"/" + name if directory.path else name
            yield Unreadable(path=path, reason=os.strerror(error), directory=directory.id)
        if reading.same:
            yield Listing(
                directory=directory.id,
                path=directory.path,
                entries=None,
                fingerprint=reading.fingerprint,
                again=again,
            )
            return
        racy_ns = reading.read_ns - self._racy_ns
        settled = not reading.failed and (self._view.stable or max(reading.newest_ns, reading.ctime_ns) < racy_ns)
        for part in self._read_parts(directory) if reading.listing is None else [reading.listing]:
            yield Listing(
                directory=directory.id,
                path=directory.path,
                entries=self._entries(part, reading),
                fingerprint=reading.fingerprint if settled else None,
                part=reading.listing is None,
                last=part.complete,
                again=again,
                kept=frozenset(name for name, _ in reading.failed),
            )
            again = False

    def _read_parts(self, directory: _Directory) -> Iterator[_posix.DirectoryListing]:
        self._wait(directory)
        before = self._before(directory)
        with Root(self._view.root, keep=1) as root:
            fd = root.open(directory.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                device = _posix.look(fd, b"")[9]
                while True:
                    part = _posix.read_directory(fd, device, self._known.seed, directory.salt, _PART, before)
                    part.find_xattrs(fd, before)
                    yield part
                    if part.complete:
                        return
            finally:
                os.close(fd)

    def _entries(self, listing: _posix.DirectoryListing, reading: _Reading) -> list[Entry]:
        """The entries within the scope."""
        scope, path = self._scope, reading.directory.path
        prefix = path + b"/" if path else b""
        everything = scope.all
        entries = []
        for name, _, fields, has_xattrs in listing.entries():
            if fields is None:
                continue
            is_directory = stat.S_ISDIR(fields[1])
            if not everything and scope.excludes(prefix + name, is_directory):
                continue
            object_id, mount = fields[0], False
            if is_directory and fields[9] != reading.device:
                mount = True
                object_id = self._mounted_id(prefix + name)
            entries.append(Entry(name, object_id, Attributes._make(fields[1:9]), mount, has_xattrs))
        return entries

    def _mounted_id(self, path: bytes) -> ObjectId:
        with Root(self._view.root, keep=1) as root:
            fd, name = root.parent(path)
            return _posix.look(fd, name, mount_salt(path))[0]

    def _changed_since_read(self) -> list[_Directory]:
        """The directories whose listing may be out of date: something may have moved past the walk."""
        changed = []
        with Root(self._view.root) as root:
            for path, object_id, salt, mtime_ns, ctime_ns, read_ns in self._seen:
                self._wait(_Directory(path, object_id, salt))
                try:
                    now = _posix.look(root.directory(path), b"", salt)
                except OSError as error:
                    # A directory that went has changed its parent, which is read again. Else reading it tells more.
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                        changed.append(_Directory(path, object_id, salt))
                    continue
                racy = read_ns - _TICK_NS < ctime_ns <= read_ns + _TICK_NS
                if now[0] == object_id and (now[6] != mtime_ns or now[7] != ctime_ns or racy):
                    changed.append(_Directory(path, object_id, salt))
        self._seen.close()
        self._seen = SpillList()
        return changed


def mount_salt(path: bytes) -> int:
    """What tells ids of a filesystem mounted at ``path`` from those of others: 64 bits, never 0."""
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "big") or 1
