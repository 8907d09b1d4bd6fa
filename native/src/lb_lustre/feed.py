"""Read the changelog of one metadata server, by whichever means; what has to be waited for and read again."""

from __future__ import annotations

import errno
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

from lb_lustre._records import Reduction, Stream
from lb_lustre.errors import LustreError
from lb_lustre.ledger import Entry
from lb_lustre.record import Record, decode

_HOLE_SECONDS = 6.0
"""A record may be written after the one behind it: for so long, one commit interval, a hole is waited for."""
_ADVICE = {
    errno.ENOENT: "is the filesystem mounted on this node?",
    errno.EACCES: "only root may read changelogs, and the servers may refuse a root that they squash (nodemap)",
    errno.EPERM: "only root may read changelogs, and the servers may refuse a root that they squash (nodemap)",
}


class Feed(ABC):
    """One metadata server's changelog."""

    def __init__(self, mdt: str, where: str) -> None:
        """
        :param mdt: what it is called in messages, such as ``MDT0000``.
        :param where: how it is read, for messages.
        """
        self.mdt = mdt
        self._where = where

    @abstractmethod
    def reading(self, start: int) -> AbstractContextManager[Callable[[], bytes]]:
        """Open the changelog at the record with index ``start``, or the first one left after it.

        What is given returns whole records at each call, ``b""`` at the end, or raises OSError.

        :raises LustreError: when it cannot be opened.
        """

    @abstractmethod
    def _clear(self, user: str, index: int) -> None:
        """``clear`` of an index that may be cleared."""

    def read(self, entry: Entry, reduction: Reduction, lock: threading.Lock) -> Stream:
        """Reduce all records that are not cleared, as far as there are any.

        Those that were read before ask for a look only, when they still are the same. A hole at the end is waited for:
        records are not always written in the order of their indices.

        :raises LustreError: when the changelog cannot be read.
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
        with self.reading(start) as read:
            try:
                while data := read():
                    with lock:
                        reduction.feed(data, stream)
            except OSError as error:
                raise self._error(error, f"could not be read on after index {stream.last}") from error
        return stream

    def oldest(self, start: int) -> Record | None:
        """The first record that is left from index ``start`` on.

        :raises LustreError: when the changelog cannot be read.
        """
        with self.reading(start) as read:
            try:
                return next(decode(read()), None)
            except OSError as error:
                raise self._error(error, "could not be read") from error

    def clear(self, user: str, index: int) -> None:
        """``user`` needs no record up to ``index``.

        :raises OSError: ENOENT for an unknown user, EINVAL for an index that cannot be (section 9, item 9).
        :raises ValueError: for index 0, which the server takes for "everything".
        """
        if index <= 0:
            raise ValueError("clearing index 0 would clear everything")
        self._clear(user, index)

    def _error(self, error: OSError, what: str) -> LustreError:
        advice = _ADVICE.get(error.errno or 0, "see the kernel's log on this node")
        return LustreError(f"the changelog of {self.mdt} ({self._where}) {what}: {error.strerror}; {advice}")
