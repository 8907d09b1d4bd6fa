"""The target folder of a job: the mirror, the stage, and what else lies under ``.lb``."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence

from lbcore import _posix
from lbcore.attributes import is_privileged
from lbcore.beneath import Root
from lbcore.catalog.objects import Row
from lbcore.catalog.steps import Step
from lbcore.errors import TargetError

_log = logging.getLogger(__name__)

TREE = b"tree"
LB = b".lb"


def fan(obj: int) -> bytes:
    """The folder for an object's number: no folder gets more than a thousand of either."""
    return b"%03d/%03d" % (obj // 1_000_000, obj // 1_000 % 1_000)


class Target:
    """Open folders of a target, and the few operations that cross them. All paths are relative.

    Errors of the target end the run: they are raised as they are (OSError), and reported with their path.
    """

    def __init__(self, path: bytes) -> None:
        """Open the target, making what is missing of it.

        :raises TargetError: when it cannot be made or written.
        """
        self.path = path
        self.privileged = is_privileged()
        if os.path.isdir(os.path.join(path, LB, b"runs")) and not os.path.lexists(os.path.join(path, TREE)):
            raise TargetError(
                f"{os.fsdecode(path)}/tree is gone, while .lb beside it is there: bring it back under this name. If it "
                "is lost, begin anew with an empty target; 'lb restore' still finds earlier contents in .lb/versions"
            )
        try:
            os.makedirs(path, exist_ok=True)
            _make_folder(os.path.join(path, TREE), 0o755)
            _make_folder(os.path.join(path, LB), 0o700)
            os.chmod(os.path.join(path, LB), 0o700)
            for folder in (b"stage", b"versions", b"runs", b"log"):
                _make_folder(os.path.join(path, LB, folder), 0o700)
            self.tree = Root(os.path.join(path, TREE))
            self.lb = Root(os.path.join(path, LB))
        except OSError as error:
            raise TargetError(
                f"the target {os.fsdecode(path)} cannot be used: {_said(error)}; "
                "check that it is mounted, writable, and has space"
            ) from error
        self._made: set[bytes] = set()
        self._strays = 0
        self.unlocked: set[bytes] = set()
        """Directories of the mirror that are to get their attributes again: their permissions were widened so that
        their owner could write in them, or something in them was made anew."""
        self.rebuilt: set[bytes] = set()
        """Directories that somebody took out of the mirror, made anew because something belongs there."""
        self.redoing = False
        """True while the steps of an attempt that was cut short are done again."""

    def close(self) -> None:
        """Close all folders."""
        self.tree.close()
        self.lb.close()

    def sync(self) -> None:
        """Make everything done so far durable."""
        _posix.syncfs(self.lb.fd)

    # -- places ------------------------------------------------------------------------------------------------

    def stage_path(self, obj: int) -> bytes:
        """Where a lifted object lies, relative to ``.lb``; its folder exists."""
        return self._fanned(b"stage", obj, b"%d" % obj)

    def version_path(self, obj: int, data_run: int) -> bytes:
        """Where the content that run ``data_run`` brought is kept, relative to ``.lb``; its folder exists."""
        return self._fanned(b"versions", obj, b"%d.%d" % (obj, data_run))

    def _fanned(self, folder: bytes, obj: int, name: bytes) -> bytes:
        path = folder + b"/" + fan(obj)
        if path not in self._made:
            self.make_folders(path)
            self._made.add(path)
        return path + b"/" + name

    def make_folders(self, path: bytes) -> None:
        """Make a folder below ``.lb``, and those above it."""
        parts = path.split(b"/")
        for end in range(1, len(parts) + 1):
            with contextlib.suppress(FileExistsError):
                parent, name = self.lb.parent(b"/".join(parts[:end]))
                os.mkdir(name, 0o700, dir_fd=parent)

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """The directory of the mirror that holds ``path``, writable, and the base name."""
        return self._reach(path, 0o700)

    def parent_made(self, path: bytes, run: int) -> tuple[int, bytes]:
        """The same; directories on the way that somebody took out of the mirror, or replaced, are made anew."""
        there = self._parent_there(path)
        if there is not None:
            return there
        parts = path.split(b"/")[:-1]
        for end in range(1, len(parts) + 1):
            directory = b"/".join(parts[:end])
            found = self.status(directory)
            if found is not None and stat.S_ISDIR(found.st_mode):
                continue
            if found is not None:
                self.set_aside(directory, run)
            parent, name = self.parent(directory)
            os.mkdir(name, 0o700, dir_fd=parent)
            self.rebuilt.add(directory)
            self.unlocked.add(b"/".join(parts[: end - 1]))  # it was written in
        return self.parent(path)

    def _parent_there(self, path: bytes) -> tuple[int, bytes] | None:
        """The same; None where a directory on the way is not there, or something else is in its place."""
        try:
            return self.parent(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            return None

    def _reach(self, path: bytes, needed: int = 0o500) -> tuple[int, bytes]:
        """The directory of the mirror that holds ``path``, with at least ``needed`` for its owner, and the name."""
        if self.privileged:
            return self.tree.parent(path)
        head = path.rpartition(b"/")[0]
        if self.redoing:
            # An attempt that was cut short may have widened them without noting it.
            parts = head.split(b"/") if head else []
            self.unlocked |= {b"/".join(parts[:end]) for end in range(len(parts) + 1)}
        with contextlib.suppress(PermissionError):
            fd, name = self.tree.parent(path)
            if os.fstat(fd).st_mode & needed == needed:
                return fd, name
        self._unlock(head, needed)
        return self.tree.parent(path)

    def _unlock(self, path: bytes, needed: int) -> None:
        """An ordinary user's mirror may hold directories that even their owner cannot enter or write."""
        parts = path.split(b"/") if path else []
        for end in range(len(parts) + 1):
            directory = b"/".join(parts[:end])
            fd = self.tree.open(directory, os.O_PATH | os.O_DIRECTORY)
            try:
                self._widen(fd, directory, needed if end == len(parts) else 0o100)
            finally:
                os.close(fd)

    def _widen(self, fd: int, directory: bytes, needed: int) -> None:
        mode = os.fstat(fd).st_mode
        if mode & needed != needed:
            os.chmod(b"/proc/self/fd/%d" % fd, stat.S_IMODE(mode) | needed)
            self.unlocked.add(directory)

    # -- operations --------------------------------------------------------------------------------------------

    def status(self, path: bytes) -> os.stat_result | None:
        """``lstat`` of a path in the mirror, or None where nothing is."""
        return _status(self._reach, path)

    def likeliest_first(self, paths: Sequence[bytes], thing: Row | Step) -> list[bytes]:
        """The names of one object, those first that still look like it: somebody may have replaced others."""
        if len(paths) < 2:
            return list(paths)

        def is_other(path: bytes) -> bool:
            there = self.status(path)
            if there is None or stat.S_IFMT(there.st_mode) != stat.S_IFMT(thing.mode):
                return True
            same = (there.st_size, there.st_mtime_ns) == (thing.size, thing.mtime_ns)
            return stat.S_ISREG(thing.mode) and not same

        return sorted(paths, key=is_other)

    def lb_status(self, path: bytes) -> os.stat_result | None:
        """``lstat`` of a path below ``.lb``, or None where nothing is."""
        return _status(self.lb.parent, path)

    def unlink(self, path: bytes, run: int) -> None:
        """Remove a name from the mirror; it may be gone already. What somebody else put there is set aside."""
        there = self._parent_there(path)
        if there is None:
            return
        try:
            os.unlink(there[1], dir_fd=there[0])
        except FileNotFoundError:
            return
        except IsADirectoryError:
            self.set_aside(path, run)

    def remove_directory(self, path: bytes, run: int) -> None:
        """Remove a directory from the mirror; what somebody else put into it is set aside."""
        there = self._parent_there(path)
        if there is None:
            return
        try:
            os.rmdir(there[1], dir_fd=there[0])
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            self.set_aside(path, run)

    def lift(self, path: bytes, place: bytes) -> bool:
        """Move a path of the mirror to ``place`` below ``.lb``; False where there is nothing to move."""
        there = self._parent_there(path)
        if there is None:
            return False
        old_parent, old_name = there
        try:
            new_parent, new_name = self.lb.parent(place)
            try:
                os.rename(old_name, new_name, src_dir_fd=old_parent, dst_dir_fd=new_parent)
            except PermissionError:
                if self.privileged:
                    raise
                # A directory that moves to another one is written in: its entry ".." changes.
                with self.handle(path) as fd:
                    self._widen(fd, path, 0o700)
                os.rename(old_name, new_name, src_dir_fd=old_parent, dst_dir_fd=new_parent)
        except FileNotFoundError:
            return False
        return True

    def set_down(self, place: bytes, path: bytes, run: int) -> bool:
        """Move ``place`` below ``.lb`` to a free path of the mirror; False where there is nothing to move.

        What somebody else put at ``path`` is set aside.
        """
        for _ in range(2):
            if self.lb_status(place) is None:
                return False
            try:
                old_parent, old_name = self.lb.parent(place)
                new_parent, new_name = self.parent_made(path, run)
                _posix.rename_new(old_parent, old_name, new_parent, new_name)
                return True
            except FileExistsError:
                self.set_aside(path, run)
        raise TargetError(f"{os.fsdecode(self.path)}/tree/{os.fsdecode(path)} comes back whenever it is moved away")

    def replace(self, place: bytes, path: bytes, run: int) -> None:
        """Move ``place`` below ``.lb`` over a path of the mirror, in one step."""
        old_parent, old_name = self.lb.parent(place)
        new_parent, new_name = self.parent_made(path, run)
        os.rename(old_name, new_name, src_dir_fd=old_parent, dst_dir_fd=new_parent)

    def link(self, path: bytes, place: bytes) -> bool:
        """Give a file of the mirror a second name below ``.lb``; False where the file is not there.

        :raises FileExistsError: when ``place`` is taken.
        """
        there = self._parent_there(path)
        if there is None:
            return False
        old_parent, old_name = there
        try:
            new_parent, new_name = self.lb.parent(place)
            os.link(old_name, new_name, src_dir_fd=old_parent, dst_dir_fd=new_parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def set_aside(self, path: bytes, run: int) -> None:
        """Move something that lb did not put into the mirror to ``.lb/strays``."""
        folder = b"strays/%d" % run
        self.make_folders(folder)
        with Root(os.path.join(self.path, LB, folder)) as strays:
            old_parent, old_name = self.parent(path)
            name = b""
            while not name:
                self._strays += 1
                with contextlib.suppress(FileExistsError):  # of an attempt that was cut short
                    taken = b"%d-%s" % (self._strays, path.rpartition(b"/")[2][:200])
                    _posix.rename_new(old_parent, old_name, strays.fd, taken)
                    name = taken
        _log.warning("set aside what was not put there by lb: tree/%s is now .lb/%s/%s",
                     os.fsdecode(path), os.fsdecode(folder), os.fsdecode(name))  # fmt: skip

    @contextlib.contextmanager
    def handle(self, path: bytes) -> Iterator[int]:
        """A descriptor (``O_PATH``) of an object of the mirror itself, for its attributes."""
        try:
            parent, name = self._reach(path) if path else (self.tree.fd, b".")
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error
            raise
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
        try:
            yield fd
        finally:
            os.close(fd)


def _said(error: OSError) -> str:
    name = error.filename
    return f"{os.fsdecode(name)}: {error.strerror}" if isinstance(name, str | bytes) else str(error.strerror)


def _make_folder(path: bytes, mode: int) -> None:
    """Make a folder; a link in its place, even to a folder, could lead anywhere.

    :raises OSError: when there is something else, or it cannot be made.
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", path) from None


def _status(parent_of: object, path: bytes) -> os.stat_result | None:
    try:
        parent, name = parent_of(path)  # type: ignore[operator]
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None
