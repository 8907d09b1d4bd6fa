"""Path operations that cannot leave a folder, whatever symbolic links or names lie below it."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from types import TracebackType

from lbcore import _posix
from lbcore._posix import check_name

_PATH_LIMIT = 4000
"""Bytes of a path given to the kernel at once: PATH_MAX is 4096, the final zero included (path_resolution(7))."""


class Root:
    """A folder, open; every path is relative to it, and no symbolic link is followed on the way.

    Keeps the last directories open, so that work on many files of one directory costs one look-up. Not for use
    by two threads at once: each opens its own.
    """

    KEPT = 32
    """How many directories stay open: a descriptor stays good until that many others were asked for."""

    def __init__(self, path: bytes, keep: int = KEPT) -> None:
        """Open ``path``, which may itself be reached through symbolic links.

        :raises OSError: when it is not a directory that can be opened.
        """
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._keep = keep
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._last, self._last_fd = b"", self.fd

    def open(self, path: bytes, flags: int, mode: int = 0) -> int:
        """A new descriptor of ``path`` (``b""``: the folder itself), as open(2).

        :raises OSError: ELOOP where a component is a symbolic link, EXDEV where it would lead out.
        """
        if not path:
            return os.open(b".", flags, dir_fd=self.fd)
        flags |= os.O_NOFOLLOW
        if len(path) <= _PATH_LIMIT:
            return _open_once(self.fd, path, flags, mode)
        return self._open_long(path, flags, mode)

    def _open_long(self, path: bytes, flags: int, mode: int) -> int:
        """A path longer than the kernel takes, a piece at a time."""
        at = os.dup(self.fd)
        try:
            while len(path) > _PATH_LIMIT:
                cut = path.rindex(b"/", 0, _PATH_LIMIT)
                deeper = _open_once(at, path[:cut], os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, 0)
                os.close(at)
                at, path = deeper, path[cut + 1 :]
            return _open_once(at, path, flags, mode)
        finally:
            os.close(at)

    def directory(self, path: bytes) -> int:
        """A descriptor of the directory ``path``, for ``dir_fd=``; owned by this object.

        :raises OSError: when it is not there, or not a directory.
        """
        if path == self._last:
            return self._last_fd
        fd = self._open.get(path) if path else self.fd
        if fd is None:
            fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
            self._open[path] = fd
            if len(self._open) > self._keep:
                os.close(self._open.popitem(last=False)[1])
        elif path:
            self._open.move_to_end(path)
        self._last, self._last_fd = path, fd
        return fd

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """The descriptor of the directory that holds ``path``, and the base name in it.

        :raises ValueError: when the last component is no file name.
        """
        head, _, name = path.rpartition(b"/")
        check_name(name)
        return self.directory(head), name

    def forget(self) -> None:
        """Close the directories kept open: their paths may have changed."""
        self._last, self._last_fd = b"", self.fd
        while self._open:
            os.close(self._open.popitem()[1])

    def close(self) -> None:
        """Close everything."""
        self.forget()
        os.close(self.fd)

    def __enter__(self) -> Root:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_once(dirfd: int, path: bytes, flags: int, mode: int) -> int:
    try:
        return _posix.open_beneath(dirfd, path, flags, mode if flags & os.O_CREAT else 0)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        # Before Linux 5.6, and in some sandboxes, there is no openat2: walk, name by name.
        return _open_by_walking(dirfd, path, flags, mode)


def _open_by_walking(dirfd: int, path: bytes, flags: int, mode: int) -> int:
    *folders, name = path.split(b"/")
    at = os.dup(dirfd)
    try:
        for folder in folders:
            check_name(folder)
            deeper = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = deeper
        check_name(name)
        return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=at)
    finally:
        os.close(at)
