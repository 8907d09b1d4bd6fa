"""Transfer ``copy``: plain copies within this host, with the digest taken on the way."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence

import xxhash

from lbcore import _posix
from lbcore.beneath import Root
from lbcore.errors import TargetError
from lbcore.model import Delivered, Delivery, TransferItem, View
from lbcore.reading import ChangedError, check_unchanged, failure, open_unchanged

_BLOCK_BYTES = 1 << 20
_HOLE_BYTES = 16 << 10
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
            raise _target_error(OSError(code, os.strerror(code)))
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
        outgoing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target.fd)
        try:
            cloned = _clone(incoming, outgoing)
            digest = _pump(incoming, None if cloned else outgoing, item)
            check_unchanged(incoming, item)
        finally:
            os.close(outgoing)
    except (ChangedError, _SourceReadError) as error:
        os.unlink(name, dir_fd=target.fd)
        return failure(item, error if isinstance(error, ChangedError) else error.cause)
    finally:
        os.close(incoming)
    return Delivered(obj=item.obj, path=name, digest=digest, sent_bytes=item.attributes.size)


class _SourceReadError(Exception):
    """Reading failed: that concerns the file, while a failure to write concerns the run."""

    def __init__(self, cause: OSError) -> None:
        self.cause = cause


def _clone(incoming: int, outgoing: int) -> bool:
    """Share the blocks where both ends are on one filesystem that can."""
    try:
        fcntl.ioctl(outgoing, _FICLONE, incoming)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        return False
    return True


def _pump(incoming: int, outgoing: int | None, item: TransferItem) -> bytes:
    """Read all, write it unless it is shared already, keep holes; returns the digest.

    :raises ChangedError: when there is more or less than was observed.
    """
    size = item.attributes.size
    state = xxhash.xxh3_128()
    at = 0
    for start, end in _data(incoming, size):
        _add_zeros(state, start - at)
        at = start
        while at < end:
            block = _read(incoming, min(_BLOCK_BYTES, end - at), at)
            if not block:
                raise ChangedError
            state.update(block)
            if outgoing is not None:
                _write(outgoing, block, at)
            at += len(block)
    _add_zeros(state, size - at)
    if outgoing is not None:
        os.ftruncate(outgoing, size)
    return state.digest()


def _has_holes(fd: int, size: int) -> bool:
    """Whether it is worth to look for holes: a small one saves nothing."""
    return size > _HOLE_BYTES and os.fstat(fd).st_blocks * 512 < size - _HOLE_BYTES


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes (lseek(2), SEEK_DATA and SEEK_HOLE)."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise _SourceReadError(error) from error
        at = min(size, os.lseek(fd, start, os.SEEK_HOLE))
        if start >= size:
            return
        yield start, at


_ZEROS = bytes(_BLOCK_BYTES)


def _add_zeros(state: xxhash.xxh3_128, count: int) -> None:
    while count > 0:
        state.update(_ZEROS[: min(count, _BLOCK_BYTES)])
        count -= _BLOCK_BYTES


def _read(fd: int, size: int, at: int) -> bytes:
    try:
        return os.pread(fd, size, at)
    except OSError as error:
        raise _SourceReadError(error) from error


def _write(fd: int, block: bytes, at: int) -> None:
    view = memoryview(block)
    while view:
        try:
            written = os.pwrite(fd, view, at)
        except OSError as error:
            raise _target_error(error) from error
        view = view[written:]
        at += written


def _target_error(error: OSError) -> TargetError:
    return TargetError(f"the target cannot be written: {error.strerror}; mend that (is it full?) and run again")
