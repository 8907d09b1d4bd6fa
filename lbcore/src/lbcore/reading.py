"""Read a file of the source so that what is read belongs to one state of it."""

from __future__ import annotations

import errno
import os
import stat

from lbcore import _posix
from lbcore.beneath import Root
from lbcore.model import Attributes, NotDelivered, TransferItem

_REPLACED = (errno.ELOOP, errno.ENXIO)
"""What opening says of a symbolic link or a socket that has taken the name of a file."""


class ChangedError(Exception):
    """The file is not, or no longer, as it was observed."""


def open_unchanged(root: Root, item: TransferItem) -> int:
    """Open a file of the view for reading; no symbolic link is followed, no pipe waited for.

    :raises ChangedError: when it is not the file that was observed.
    :raises OSError: when it cannot be opened.
    """
    # O_NONBLOCK: a pipe that has taken the file's name must not block the run.
    fd = root.open(item.path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not _posix.is_same(fd, item.id):
            raise ChangedError
        check_unchanged(fd, item)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_unchanged(fd: int, item: TransferItem) -> None:
    """The open file is still in the observed state.

    :raises ChangedError: when it is not.
    """
    fields = _posix.look(fd, b"")
    now, then = Attributes._make(fields[1:9]), item.attributes
    same = (now.size, now.mtime_ns, now.ctime_ns) == (then.size, then.mtime_ns, then.ctime_ns)
    if not same or not stat.S_ISREG(now.mode):
        raise ChangedError


def failure(item: TransferItem, error: ChangedError | OSError) -> NotDelivered:
    """The result for an item that could not be read."""
    if isinstance(error, ChangedError) or error.errno in _REPLACED:
        return NotDelivered(obj=item.obj, reason="changed while it was read", changed=True)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return NotDelivered(obj=item.obj, reason="vanished before it was read")
    return NotDelivered(obj=item.obj, reason=error.strerror or str(error))
