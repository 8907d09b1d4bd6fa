"""How a job's registration with a metadata server is: what waits there, and until when the server puts up with it."""

from __future__ import annotations

from dataclasses import dataclass

from lb_lustre.feed import Feed
from lb_lustre.server import Server, State, User

_IDLE_RECORDS_LIMIT = 86_400 << 32
"""Seconds times records, from which on a server drops a user (mdd_internal.h; section 4 of the reference)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backlog:
    """One metadata server; what is not known, and all of a user that is not registered, is None."""

    mdt: str
    user: str | None
    """Id of our user; None when it is not registered."""
    lacking: tuple[str, ...]
    """The types of records that are needed and not recorded."""
    last: int
    """Index of the last record."""
    size_bytes: int | None
    """Of the changelog on the server, that of other users included."""
    cleared: int | None = None
    first: int | None = None
    """Index of the oldest record that is not cleared; None when there is none."""
    oldest_seconds: int | None = None
    """How old that is."""
    idle_seconds: int | None = None
    """Since we cleared last."""
    hours_left: float | None = None
    """Until the server drops us, if we never clear again and nothing more is recorded; None when it does not."""

    @property
    def waiting(self) -> int | None:
        """How many records are not cleared."""
        return None if self.cleared is None else self.last - self.cleared


def look(server: Server, feed: Feed, name: str, configured: str | None, now_ns: int) -> Backlog:
    """Ask a server, and its changelog.

    :raises LustreError: when one of them cannot be read.
    """
    state = server.state()
    user = state.user(name, configured)
    if user is None:
        return Backlog(mdt=server.mdt, user=None, lacking=(), last=state.current, size_bytes=state.size_bytes)
    oldest = feed.oldest(user.cleared + 1)
    return Backlog(
        mdt=server.mdt,
        user=user.id,
        lacking=tuple(state.lacking(user)),
        last=state.current,
        size_bytes=state.size_bytes,
        cleared=user.cleared,
        first=None if oldest is None else oldest.index,
        oldest_seconds=None if oldest is None else max(0, (now_ns - oldest.time_ns) // 10**9),
        idle_seconds=user.idle_seconds,
        hours_left=hours_left(state, user),
    )


def hours_left(state: State, user: User) -> float | None:
    """Until a server drops a user, as things are; None when it never does, or does not tell."""
    if not state.removes_idle or user.idle_seconds is None:
        return None
    waiting = state.current - user.cleared
    if waiting > state.max_idle_records:
        return 0.0
    limit = min(state.max_idle_seconds, _IDLE_RECORDS_LIMIT // max(waiting, 1))
    return max(0, limit - user.idle_seconds) / 3600
