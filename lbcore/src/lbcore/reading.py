"""Read a file of the source so that what is read belongs to one state of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from lbcore import _posix
from lbcore.beneath import Root
from lbcore.model import Attributes, ById, NotDelivered, TransferItem

NOTHING_THERE = (errno.ENOENT, errno.ESTALE, errno.EINVAL)
"""What is said of a path or an id that leads to nothing (any more), or is no id of this filesystem."""
_REPLACED = (errno.ELOOP, errno.ENXIO)
"""What opening says of a symbolic link or a socket that has taken the name of a file."""
_RUNS_WITH_RIGHTS = 0o6111
"""A file that anybody may execute can have rights (set-uid, capabilities) that a write takes away."""


class ChangedError(Exception):
    """The file is not, or no longer, as it was observed."""


@contextlib.contextmanager
def unchanged(root: Root, item: TransferItem, by_id: ById | None = None) -> Iterator[int]:
    """A file of the view, open for reading; no symbolic link is followed, no pipe waited for.

    It is looked at before the block, and when the block is left. What has no version must have size and times as
    observed. What has one may have been renamed: its ctime tells of that, too, and its content is in one state when
    size, mtime, owner and mode are as observed and the version is the same at the end. That this may be a later state
    does no harm: the ctime in the catalog, or a feed, makes the next run compare it.

    :raises ChangedError: when it is not the file that was observed, or not, or no longer, in that state.
    :raises OSError: when it cannot be opened.
    """
    fd = _open(root, item, by_id)
    try:
        if not _posix.is_same(fd, item.id):
            raise ChangedError
        version = None if by_id is None else by_id.version(fd)
        _check(fd, item, versioned=version is not None)
        yield fd
        _check(fd, item, versioned=version is not None)
        if by_id is not None and by_id.version(fd) != version:
            raise ChangedError
    finally:
        os.close(fd)


def _open(root: Root, item: TransferItem, by_id: ById | None) -> int:
    # O_NONBLOCK: a pipe that has taken the file's name must not block the run.
    flags = os.O_RDONLY | os.O_NONBLOCK
    if by_id is not None:
        try:
            return _open_quietly(by_id.path(item.id), flags | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in NOTHING_THERE:
                raise
        # It may be on another filesystem, which is mounted below.
    return root.open(item.path, flags)


def _open_quietly(path: bytes, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:  # that is for owners and root only
        return os.open(path, flags)


def _check(fd: int, item: TransferItem, *, versioned: bool) -> None:
    fields = _posix.look(fd, b"")
    now, then = Attributes._make(fields[1:9]), item.attributes
    same = (now.size, now.mtime_ns) == (then.size, then.mtime_ns) and stat.S_ISREG(now.mode)
    if versioned and not then.mode & _RUNS_WITH_RIGHTS:
        same = same and (now.mode, now.uid, now.gid) == (then.mode, then.uid, then.gid)
    else:
        same = same and now.ctime_ns == then.ctime_ns
    if not same:
        raise ChangedError


def failure(item: TransferItem, error: ChangedError | OSError) -> NotDelivered:
    """The result for an item that could not be read."""
    if isinstance(error, ChangedError) or error.errno in _REPLACED:
        return NotDelivered(obj=item.obj, reason="changed while it was read", changed=True)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return NotDelivered(obj=item.obj, reason="vanished before it was read")
    return NotDelivered(obj=item.obj, reason=error.strerror or str(error))
