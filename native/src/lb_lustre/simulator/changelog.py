"""The changelog of one metadata server: users, records, clearing and what it suppresses."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lb_lustre.record import Record, Type

DEFAULT_MASK = frozenset(Type) - {Type.ATIME, Type.OPEN, Type.GXATR, Type.NOPEN}
"""What is recorded unless a user asks for more (lustre_idl.h; section 1)."""
_SUPPRESSED = (Type.MTIME, Type.CTIME, Type.ATIME)


@dataclass(slots=True)
class User:
    """Who reads a changelog. Records stay until every user has cleared them."""

    name: str
    """``clN`` or ``clN-NAME``."""
    cleared: int
    """Index of the last record that this user has cleared."""
    mask: frozenset[Type]
    asked: bool = False
    """Whether it asked for this mask itself."""
    cleared_at: float = field(default_factory=time.monotonic)


class Changelog:
    """Records of one metadata server. Not for two threads at once."""

    def __init__(self, mdt: int) -> None:
        self.mdt = mdt
        self.users: dict[str, User] = {}
        self.index = 0
        """Index of the last record."""
        self.purges = 0
        """How often something was purged: what was recorded since then is not recorded again (``add``)."""
        self._records: deque[tuple[int, bytes]] = deque()
        self._registered = 0
        self._loaded: frozenset[Type] | None = None
        """What alone is recorded since a restart of the server, until it is computed anew."""
        self._in_flight: set[int] = set()
        """Records that have an index, and are not yet written."""
        self._breaks_after: int | None = None
        self._most_bytes: int | None = None
        self._skew_ns = 0

    @property
    def mask(self) -> frozenset[Type]:
        """What is recorded: what any user asks for; after a restart what the newest does (section 4)."""
        if self._loaded is not None:
            return self._loaded
        return frozenset().union(*(user.mask for user in self.users.values()))

    def add(self, record: Record, recorded_at: int) -> int:
        """Enter a record; its index is set here.

        :param recorded_at: what this returned for the last record of the same object; -1 when there was none.
        :returns: to be kept with the object.
        """
        if not self.users or record.type not in self.mask:
            return recorded_at
        if record.type in _SUPPRESSED and recorded_at == self.purges:
            return recorded_at  # section 3, "Suppression"
        self.index += 1
        written = replace(record, index=self.index, time_ns=record.time_ns + self._skew_ns)
        self._records.append((self.index, written.encode()))
        return self.purges

    @property
    def size_bytes(self) -> int:
        """Of the records."""
        return sum(len(data) for _, data in self._records)

    # -- users --------------------------------------------------------------------------------------------------

    def register(self, name: str | None, mask: Iterable[Type] | None) -> str:
        """A new user, who gets what is recorded from now on. Returns its id.

        :raises OSError: EEXIST when the name is taken.
        """
        if name is not None and any(user.partition("-")[2] == name for user in self.users):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._registered += 1
        user = f"cl{self._registered}" + (f"-{name}" if name else "")
        chosen = DEFAULT_MASK if mask is None else frozenset(mask)
        self.users[user] = User(name=user, cleared=self.index, mask=chosen, asked=mask is not None)
        self._loaded = None if self._loaded is None else self._loaded | chosen
        return user

    def deregister(self, user: str) -> None:
        """A user is gone, and what was kept for it alone.

        :raises OSError: ENOENT when there is none.
        """
        del self.users[self._known(user)]
        self._loaded = None
        self._purge()

    def clear(self, user: str, index: int) -> None:
        """``user`` needs no record up to ``index``; 0 means all there are.

        :raises OSError: EINVAL beyond the end or below what is cleared, ENOENT for an unknown user (section 9, item 9).
        """
        one = self.users[self._known(user)]
        index = index or self.index
        if index > self.index or index < one.cleared:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        one.cleared, one.cleared_at = index, time.monotonic()
        self._purge()

    def _known(self, user: str) -> str:
        found = next((name for name in self.users if user in (name, name.partition("-")[0])), None)
        if found is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return found

    def _purge(self) -> None:
        upto = min((user.cleared for user in self.users.values()), default=self.index)
        while self._records and self._records[0][0] <= upto:
            self._records.popleft()
        self.purges += 1

    # -- reading ------------------------------------------------------------------------------------------------

    def opened(self) -> frozenset[int]:
        """Somebody opened it: the records that they are never given (section 3, "Transient holes")."""
        return frozenset(self._in_flight)

    def read(self, start: int, size_bytes: int, never: frozenset[int] = frozenset()) -> tuple[bytes, int]:
        """Whole records from index ``start`` on, as many as fit; and the index after the last of them.

        :param never: what ``opened`` said.
        :raises OSError: EIO, once, where it was made to.
        """
        taken: list[bytes] = []
        size = 0
        for index, data in self._records:
            if index < start or index in never:
                continue
            if size + len(data) > min(size_bytes, self._most_bytes or size_bytes):
                break
            if self._breaks_after is not None and index > self._breaks_after:
                if not taken:
                    self._breaks_after = None
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                break
            self._in_flight -= {one for one in self._in_flight if one < index}
            taken.append(data)
            size += len(data)
            start = index + 1
        return b"".join(taken), start

    # -- what may go wrong --------------------------------------------------------------------------------------

    def lose(self, first: int, last: int) -> None:
        """Records are gone without having been cleared."""
        self._records = deque((index, data) for index, data in self._records if not first <= index <= last)

    def roll_back(self, count: int) -> None:
        """The server crashed: its last records are gone, and their indices are used again (section 9, item 7)."""
        for _ in range(min(count, len(self._records))):
            self.index = self._records.pop()[0] - 1

    def delay(self, index: int) -> None:
        """A record is written only once somebody was given a later one; who was never gets it, unless they reopen."""
        self._in_flight.add(index)

    def break_off(self, after: int) -> None:
        """Whoever reads next is given no record after this index, but an error."""
        self._breaks_after = after

    def dribble(self, most_bytes: int) -> None:
        """No read gives more than so many bytes, from now on; 0: as many as there is room for."""
        self._most_bytes = most_bytes

    def skew(self, seconds: int) -> None:
        """The clock of this server goes wrong by so much, from now on."""
        self._skew_ns = seconds * 10**9

    def restart(self) -> None:
        """The server was restarted: only the newest user's mask is loaded (section 4)."""
        self._loaded = list(self.users.values())[-1].mask

    def forget(self, seconds: int) -> None:
        """Nobody has cleared anything for so long."""
        for user in self.users.values():
            user.cleared_at -= seconds

    def reset(self) -> None:
        """The server was restarted without users: indices begin anew (section 9, item 8)."""
        self.users.clear()
        self._records.clear()
        self.index = self._registered = 0
        self.purges += 1
