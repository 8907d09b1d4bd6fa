"""Make one object in the destination: under a temporary name first, so that its name only ever shows it complete."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat

from lbcore import _posix
from lbcore._posix import check_name
from lbcore.attributes import Wish, is_privileged, set_attributes
from lbcore.beneath import Root
from lbcore.catalog.objects import Row
from lbcore.copying import copy_content, digest_of
from lbcore.errors import SourceError
from lbcore.held import Held
from lbcore.keeping import Keeping
from lbcore.plugins.types import Absent, Stubs
from lbcore.restore.selection import alike

_NO_LINKS = (errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_RENAME_FLAGS = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_DAMAGED = b".lb-damaged"


class DamagedError(Exception):
    """The backup does not hold the content that it should."""


class Writer:
    """Writes below one folder and nowhere else: no symbolic link is followed. Existing files are left unless told."""

    def __init__(
        self,
        destination: Root,
        held: Held,
        keeping: Keeping,
        *,
        overwrite: bool,
        resume: bool,
    ) -> None:
        """
        :param keeping: what the destination's filesystem keeps with objects.
        """
        self._root = destination
        self._held = held
        self._keeping = keeping
        self._lost: list[tuple[bytes, str]] = []
        self._overwrite = overwrite
        self._resume = resume
        self._passing = b".lb-restore-" + secrets.token_hex(8).encode()
        self._privileged = is_privileged()
        self.refused: dict[str, int] = {}
        """How often an attribute of this name could not be set."""

    def is_made(self, row: Row, path: bytes) -> bool:
        """Whether an earlier restore, with which this one goes on, made it: content and all, or it had no name yet."""
        parent, name = self._root.parent(path)
        if self._made_earlier(row, parent, name) is None:
            return False
        if stat.S_ISLNK(row.mode):
            return os.readlink(name, dir_fd=parent) == row.link_target
        if not stat.S_ISREG(row.mode):
            return True
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
        try:
            return digest_of(fd) == row.digest
        finally:
            os.close(fd)

    def _made_earlier(self, row: Row, parent: int, name: bytes) -> os.stat_result | None:
        """What may have been made by an earlier restore, with which this one goes on; it has no look at content."""
        if not self._resume:
            return None
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return there if alike(row, there) else None

    def file(self, row: Row, wish: Wish, path: bytes) -> int:
        """A regular file with its content, proved by its digest; returns its size.

        :raises DamagedError: when the backup has no such content; what it has is kept beside, as NAME.lb-damaged.
        """
        parent, name = self._root.parent(path)
        wrong = False
        for incoming in self._held.contents(row):
            if wrong:
                self._drop(parent)
            lost = self._keeping.make(parent, self._passing, wish.mode, wish.extras)
            outgoing = os.open(self._passing, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                size, digest = copy_content(incoming, outgoing)
                if row.digest is None or digest == row.digest:
                    self._dress(outgoing, wish)
                    self._show(parent, name)
                    self._tell_lost(path, lost)
                    return size
                wrong = True
            except BaseException:
                self._drop(parent)
                raise
            finally:
                os.close(outgoing)
        if not wrong:
            raise DamagedError("its content is missing in the backup")
        raise DamagedError(self._keep_damaged(parent, name))

    def _keep_damaged(self, parent: int, name: bytes) -> str:
        beside = name[: 255 - len(_DAMAGED)] + _DAMAGED
        said = "its content in the backup is damaged; it was not restored"
        try:
            _rename_new(parent, self._passing, beside)
        except OSError:
            self._drop(parent)
            return said
        return f"{said}, what there is was written to {os.fsdecode(beside)}"

    def special(self, row: Row, wish: Wish, path: bytes) -> bool:
        """A symbolic link, pipe, socket or device; False where this user may not make one."""
        parent, name = self._root.parent(path)
        if stat.S_ISLNK(row.mode):
            os.symlink(row.link_target or b"", self._passing, dir_fd=parent)
        else:
            try:
                os.mknod(self._passing, stat.S_IFMT(row.mode) | 0o600, row.rdev, dir_fd=parent)
            except PermissionError:
                self._refuse("device")
                return False
        try:
            self._dress_at(parent, self._passing, wish)
            self._show(parent, name)
        except BaseException:
            self._drop(parent)
            raise
        return True

    def stub(self, stubs: Stubs, row: Row, wish: Wish, path: bytes) -> str:
        """A file whose content stays away, which is never opened; returns what has become of the content.

        :raises SourceError: why there must be no such file.
        """
        parent, name = self._root.parent(path)
        file = Absent(
            id=row.id, mode=wish.mode, uid=wish.uid, gid=wish.gid, size=row.size, mtime_ns=wish.mtime_ns,
            extras=wish.extras,
        )  # fmt: skip
        there = self._made_earlier(row, parent, name)
        if there is None:
            lost = stubs.make(parent, self._passing, file)
            try:
                self._dress_at(parent, self._passing, wish)
                self._show(parent, name)
            except BaseException:
                self._drop(parent)
                raise
            self._tell_lost(path, lost)
        elif not self._keeping.content_is_away(
            self._keeping.read(b"/proc/self/fd/%d/%s" % (parent, name), there.st_mode)
        ):
            raise SourceError("what is there has content, and stays as it is")
        return stubs.bind(parent, name, file)

    def link(self, held: bytes, path: bytes) -> bool:
        """Another name of the file restored at ``held``; False where the filesystem allows none."""
        old_parent, old_name = self._root.parent(held)
        # Its descriptor must outlive the next look-up, which may close the directory.
        old_parent = os.dup(old_parent)
        try:
            parent, name = self._root.parent(path)
            if self._resume and _same_file(old_parent, old_name, parent, name):
                return True
            os.link(old_name, self._passing, src_dir_fd=old_parent, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._refuse("hard link")
            return False
        finally:
            os.close(old_parent)
        try:
            self._show(parent, name)
        finally:
            self._drop(parent)  # rename(2) of a name over another of the same file leaves both
        return True

    def directory(self, path: bytes, wish: Wish) -> bool:
        """A directory to write in; returns whether it is to get its attributes at the end.

        What somebody else keeps there, with the attributes he gave it, stays as it is unless we may overwrite.

        :raises FileExistsError: when something else is there.
        """
        ours = self._overwrite or self._resume
        if path:
            parent, name = self._root.parent(path)
            try:
                self._tell_lost(path, self._keeping.make(parent, name, wish.mode, wish.extras))
                return True
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    if not self._overwrite:
                        raise
                    os.unlink(name, dir_fd=parent)
                    self._tell_lost(path, self._keeping.make(parent, name, wish.mode, wish.extras))
                    return True
        else:
            parent, name = self._root.fd, b"."
            ours = ours or not os.listdir(self._root.fd)
        if ours and not self._privileged:
            self._unlock(path)
        if ours:
            self._tell_lost(path, self._keeping.give(parent, name, wish.mode, wish.extras))
        return ours

    def _tell_lost(self, path: bytes, lost: list[str]) -> None:
        self._lost += [(path, what) for what in lost]

    def take_lost(self) -> list[tuple[bytes, str]]:
        """What could not be made anew since the last call, each with the path of its object."""
        lost, self._lost = self._lost, []
        return lost

    def _unlock(self, path: bytes) -> None:
        """A directory that is there may be one that even its owner cannot write in."""
        fd = self._root.open(path, os.O_PATH | os.O_DIRECTORY)
        try:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            if mode & 0o700 != 0o700:
                with contextlib.suppress(PermissionError):
                    os.chmod(b"/proc/self/fd/%d" % fd, mode | 0o700)
        finally:
            os.close(fd)

    def finish_directory(self, wish: Wish, path: bytes) -> None:
        """Give a directory its attributes; nothing is written in it any more."""
        if path:
            parent, name = self._root.parent(path)
            self._dress_at(parent, name, wish)
        else:
            self._dress_at(self._root.fd, b".", wish)

    def _dress_at(self, parent: int, name: bytes, wish: Wish) -> None:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(wish.mode):
                raise FileExistsError(errno.EEXIST, "replaced by something else meanwhile")
            self._dress(fd, wish)
        finally:
            os.close(fd)

    def _dress(self, fd: int, wish: Wish) -> None:
        # Not as privileged: even root may not give files away on some filesystems, and that is no reason to stop.
        for name in set_attributes(fd, wish, privileged=False):
            self._refuse(name)

    def _refuse(self, name: str) -> None:
        self.refused[name] = self.refused.get(name, 0) + 1

    def _show(self, parent: int, name: bytes) -> None:
        """The object is complete: let it have its name."""
        check_name(name)
        if self._overwrite:
            os.rename(self._passing, name, src_dir_fd=parent, dst_dir_fd=parent)
        else:
            _rename_new(parent, self._passing, name)

    def _drop(self, parent: int) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._passing, dir_fd=parent)


def _same_file(old_parent: int, old_name: bytes, parent: int, name: bytes) -> bool:
    with contextlib.suppress(FileNotFoundError):
        one = os.stat(old_name, dir_fd=old_parent, follow_symlinks=False)
        return os.path.samestat(one, os.stat(name, dir_fd=parent, follow_symlinks=False))
    return False


def _rename_new(parent: int, old: bytes, new: bytes) -> None:
    """Rename within a directory, never over something.

    :raises FileExistsError: when ``new`` is there.
    """
    try:
        _posix.rename_new(parent, old, parent, new)
    except OSError as error:
        if error.errno not in _NO_RENAME_FLAGS:
            raise
        with contextlib.suppress(FileNotFoundError):  # a filesystem that cannot promise it, such as NFS
            os.stat(new, dir_fd=parent, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from error
        os.rename(old, new, src_dir_fd=parent, dst_dir_fd=parent)
