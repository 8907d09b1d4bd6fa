"""Transfer ``copy``: plain copies within this host, with the digest taken on the way."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence

import xxhash

from lbcore import _bulk
from lbcore.beneath import Root
from lbcore.copying import ReadError, copy_content
from lbcore.errors import TargetError
from lbcore.model import ById, Delivered, Delivery, NotDelivered, TransferItem, View
from lbcore.reading import ChangedError, failure, unchanged

_SMALL_BYTES = 1 << 20
"""Files up to this size are copied with others in one call."""
_FILES_TOGETHER = 256
_BYTES_TOGETHER = 4 << 20
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
            together = _Together(source, target)
            for item in items:
                if view.by_id is not None or item.attributes.size > _SMALL_BYTES:
                    yield _copy_alone(source, item, target, view.by_id)
                elif failed := together.add(item):
                    yield failed
                elif together.full:
                    yield from together.copy()
            yield from together.copy()


class _Together:
    """Small files, copied in one call."""

    def __init__(self, source: Root, target: Root) -> None:
        self._source = source
        self._target = target
        self._clear()

    def _clear(self) -> None:
        self._items: list[TransferItem] = []
        self._files: list[tuple[int, bytes, bytes, int, int, int, int, bytes]] = []
        self._directories: set[int] = set()
        self._bytes = 0

    def add(self, item: TransferItem) -> NotDelivered | None:
        """Take a file; returns why not, where its directory cannot be opened."""
        try:
            directory, name = self._source.parent(item.path)
        except OSError as error:
            return failure(item, error)
        now = item.attributes
        self._items.append(item)
        self._files.append((directory, name, item.id, now.mode, now.size, now.mtime_ns, now.ctime_ns, b"%d" % item.obj))
        self._directories.add(directory)
        self._bytes += now.size
        return None

    @property
    def full(self) -> bool:
        """Whether they are to be copied now: the directories have to stay open, and the content is held in memory."""
        return (
            len(self._items) >= _FILES_TOGETHER or self._bytes >= _BYTES_TOGETHER or len(self._directories) >= Root.KEPT
        )

    def copy(self) -> Iterator[Delivery]:
        """Copy those taken since the last time."""
        content, outcomes = _bulk.copy_files(self._files, self._target.fd)
        view, at = memoryview(content), 0
        for item, (outcome, code) in zip(self._items, outcomes, strict=True):
            size = item.attributes.size
            if outcome == _bulk.COPY_DONE:
                digest = xxhash.xxh3_128_digest(view[at : at + size])
                yield Delivered(obj=item.obj, path=b"%d" % item.obj, digest=digest, sent_bytes=size)
            elif outcome == _bulk.COPY_TARGET_FAILED:
                raise _target_error(OSError(code, os.strerror(code)), self._target.fd)
            elif outcome == _bulk.COPY_SPARSE:
                yield _copy_alone(self._source, item, self._target)
            else:
                yield failure(item, OSError(code, os.strerror(code)) if code else ChangedError())
            at += size
        self._clear()


def _copy_alone(source: Root, item: TransferItem, target: Root, by_id: ById | None = None) -> Delivery:
    """A file that is shared, or copied part by part around its holes."""
    name = b"%d" % item.obj
    try:
        with unchanged(source, item, by_id) as incoming:
            digest = _share_or_copy(incoming, target, name)
    except (ChangedError, ReadError, OSError) as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=target.fd)
        return failure(item, error.cause if isinstance(error, ReadError) else error)
    return Delivered(obj=item.obj, path=name, digest=digest, sent_bytes=item.attributes.size)


def _share_or_copy(incoming: int, target: Root, name: bytes) -> bytes:
    """Returns the digest.

    :raises ReadError: when the source cannot be read.
    :raises TargetError: when the target cannot be written.
    """
    try:
        outgoing = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target.fd)
        try:
            if _clone(incoming, outgoing):
                return copy_content(outgoing, None)[1]  # of what is there, not of what the source is by now
            return copy_content(incoming, outgoing)[1]
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
