"""Read the changelog of one metadata server: from its character device, whole records at a time.

Source of what the device does: section 2 of the reference (mdc_changelog.c).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator

from lb_lustre._records import Reduction, Stream
from lb_lustre.errors import LustreError
from lb_lustre.ledger import Entry

_READ_BYTES = 256 << 10
"""The device gives whole records only, and nothing at all where the first does not fit."""
_HOLE_SECONDS = 6.0
"""A record may be written after the one behind it: for so long, one commit interval, a hole is waited for."""
_ADVICE = {
    errno.ENOENT: "is the filesystem mounted on this node?",
    errno.EACCES: "only root may read changelogs, and the servers may refuse a root that they squash (nodemap)",
    errno.EPERM: "only root may read changelogs, and the servers may refuse a root that they squash (nodemap)",
}


class Feed:
    """One metadata server's changelog, by its device."""

    def __init__(self, device: str, mdt: str) -> None:
        """
        :param mdt: what it is called in messages, such as ``MDT0000``.
        """
        self.device = device
        self.mdt = mdt

    def read(self, entry: Entry, reduction: Reduction, lock: threading.Lock) -> Stream:
        """Reduce all records that are not cleared, as far as there are any.

        Those that were read before ask for a look only, when they still are the same. A hole at the end is waited for:
        records are not always written in the order of their indices.

        :raises LustreError: when the device cannot be read.
        """
        start, known = entry.cleared + 1, entry.seen
        stream = self._read_from(start, entry, known, reduction, lock)
        if entry.seen > entry.cleared and not entry.was(stream.watched):
            known = 0  # the server crashed since, and used the indices again
            stream = self._read_from(start, entry, known, reduction, lock)
        holes = entry.holes(stream)
        if holes and not stream.went_back and holes[0][0] > start:
            time.sleep(_HOLE_SECONDS)
            stream = self._read_from(start, entry, known, reduction, lock)
        return stream

    def _read_from(self, start: int, entry: Entry, known: int, reduction: Reduction, lock: threading.Lock) -> Stream:
        stream = Stream(expected=start, watch=entry.seen, known=known)
        with self._opened(os.O_RDONLY) as fd:
            try:
                if start > 1:
                    os.lseek(fd, start, os.SEEK_SET)  # the offset is an index
                while data := os.read(fd, _READ_BYTES):
                    with lock:
                        reduction.feed(data, stream)
            except OSError as error:
                raise self._error(error, f"could not be read on after index {stream.last}") from error
        return stream

    def clear(self, user: str, index: int) -> None:
        """``user`` needs no record up to ``index``.

        :raises OSError: ENOENT for an unknown user, EINVAL for an index that cannot be (section 9, item 9).
        :raises ValueError: for index 0, which the server takes for "everything".
        """
        if index <= 0:
            raise ValueError("clearing index 0 would clear everything")
        with self._opened(os.O_WRONLY) as fd:
            os.write(fd, f"clear:{user}:{index}".encode())

    @contextlib.contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        try:
            fd = os.open(self.device, flags)
        except OSError as error:
            raise self._error(error, "cannot be opened") from error
        try:
            yield fd
        finally:
            os.close(fd)

    def _error(self, error: OSError, what: str) -> LustreError:
        advice = _ADVICE.get(error.errno or 0, "see the kernel's log on this node")
        return LustreError(f"the changelog of {self.mdt} ({self.device}) {what}: {error.strerror}; {advice}")


def find_feeds(folder: str, filesystem: str) -> list[Feed]:
    """The changelogs of all metadata servers of a filesystem, in order.

    :raises LustreError: when there are none.
    """
    prefix = f"changelog-{filesystem}-"
    try:
        names = sorted(name for name in os.listdir(folder) if name.startswith(prefix))
    except OSError as error:
        raise LustreError(f"{folder} cannot be listed: {error.strerror}") from error
    if not names:
        raise LustreError(
            f"{folder} has no {prefix}MDT* : is the filesystem '{filesystem}' mounted on this node, as a client?"
        )
    return [Feed(os.path.join(folder, name), name.removeprefix(prefix)) for name in names]
