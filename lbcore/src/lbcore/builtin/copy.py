"""Transfer ``copy``: plain copies within this host, with the digest taken on the way."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence

import xxhash

from lbcore import _posix
from lbcore.beneath import Root
from lbcore.copying import ReadError, copy_content
from lbcore.errors import TargetError
from lbcore.model import Delivered, Delivery, TransferItem, View
from lbcore.reading import ChangedError, check_unchanged, failure, open_unchanged

_BLOCK_BYTES = 1 << 20
_FICLONE = 0x40049409  # ioctl_ficlone(2)
_NO_CLONE = (
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.ETXTBSY,
    errno.EPERM,
    errno.ENOSYS,
)


class Copy:
    """Takes every file."""

    def accepts(self, item: TransferItem) -> bool:
        """Always."""
        return True

    def deliver(self, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes) -> Iterator[Delivery]:
        """Copy each file to ``folder``, under its number."""
        with Root(view.root) as source, Root(folder) as target:
            for item in items:
                yield _copy(source, item, target)


def _copy(source: Root, item: TransferItem, target: Root) -> Delivery:
    name = b"%d" % item.obj
    now = item.attributes
    if now.size <= _BLOCK_BYTES:
        try:
            directory, base = source.parent(item.path)
        except OSError as error:
            return failure(item, error)
        outcome, code, content = _posix.copy_small(
            directory, base, target.fd, name, now.size, now.mtime_ns, now.ctime_ns
        )
        if outcome == _posix.COPY_DONE:
            digest = xxhash.xxh3_128_digest(content)
            return Delivered(obj=item.obj, path=name, digest=digest, sent_bytes=now.size)
        if outcome == _posix.COPY_TARGET_FAILED:
            raise _target_error(OSError(code, os.strerror(code)), target.fd)
        if outcome != _posix.COPY_SPARSE:
            return failure(item, OSError(code, os.strerror(code)) if code else ChangedError())
    return _copy_large(source, item, target, name)


def _copy_large(source: Root, item: TransferItem, target: Root, name: bytes) -> Delivery:
    """A file that is shared, or copied part by part around its holes."""
    try:
        incoming = open_unchanged(source, item)
    except (ChangedError, OSError) as error:
        return failure(item, error)
    try:
        digest = _share_or_copy(incoming, target, name)
        check_unchanged(incoming, item)
    except (ChangedError, ReadError, OSError) as error:
        os.unlink(name, dir_fd=target.fd)
        return failure(item, error.cause if isinstance(error, ReadError) else error)
    finally:
        os.close(incoming)
    return Delivered(obj=item.obj, path=name, digest=digest, sent_bytes=item.attributes.size)


def _share_or_copy(incoming: int, target: Root, name: bytes) -> bytes:
    """Returns the digest.

    :raises ReadError: when the source cannot be read.
    :raises TargetError: when the target cannot be written.
    """
    try:
        outgoing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target.fd)
        try:
            shared = _clone(incoming, outgoing)
            return copy_content(incoming, None if shared else outgoing)[1]
        finally:
            os.close(outgoing)
    except OSError as error:
        raise _target_error(error, target.fd) from error


def _clone(incoming: int, outgoing: int) -> bool:
    """Share the blocks where both ends are on one filesystem that can."""
    try:
        fcntl.ioctl(outgoing, _FICLONE, incoming)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        return False
    return True


def _target_error(error: OSError, fd: int) -> TargetError:
    where = os.readlink(f"/proc/self/fd/{fd}")
    return TargetError(f"{where} cannot be written: {error.strerror}; mend that (is it full?) and run again")
