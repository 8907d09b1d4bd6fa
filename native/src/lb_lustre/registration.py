"""A job's registration with a metadata server: looked at by each collection, mended where it is not as it must be.

What is mended was a gap: the run that scans because of it takes its view later, so nothing is lost between the two.
"""

from __future__ import annotations

import dataclasses

from lb_lustre.ledger import Entry
from lb_lustre.server import Server, State, User


def look(server: Server, name: str, configured: str | None, before: Entry | None) -> tuple[Entry | None, str | None]:
    """The same as ``ensure`` finds it; the server is only asked, and nothing is mended.

    :raises LustreError: when the server cannot be asked.
    """
    state = server.state()
    user = state.user(name, configured)
    if user is None:
        return before, f"{server.mdt}: '{name}' is not registered"
    lacking = state.lacking(user)
    if lacking:
        return before, f"{server.mdt}: {', '.join(lacking)} is not recorded for {user.id}"
    return _known(server, state, user, before)


def ensure(server: Server, name: str, configured: str | None, before: Entry | None) -> tuple[Entry, str | None]:
    """Where to read from, with our user as the server lists it; and why records may be missing.

    :param name: of our user, by which it is found, and registered where it is not there.
    :param configured: its id, where the configuration tells.
    :param before: the entry after the last collection; None when there was none.
    :raises LustreError: when the server cannot be asked, or refuses.
    """
    state = server.state()
    user = state.user(name, configured)
    if user is None:
        user = server.register(name)
        return _anew(user), f"{server.mdt}: '{name}' was not registered; it is now, as {user.id}"
    lacking = state.lacking(user)
    if lacking:
        server.deregister(user)
        new = server.register(name)
        said = f"{', '.join(lacking)} was not recorded for {user.id}; it is registered anew, as {new.id}"
        return _anew(new), f"{server.mdt}: {said}"
    return _known(server, state, user, before)


def _known(server: Server, state: State, user: User, before: Entry | None) -> tuple[Entry, str | None]:
    """Of a user who gets what it needs."""
    if before is None:
        return _anew(user), None
    reason = _reason(state, user, before)
    if reason is not None:
        return _anew(user), f"{server.mdt}: {reason}"
    return dataclasses.replace(before, user=user.id), None


def _anew(user: User) -> Entry:
    """Nothing of what was known before is of use."""
    return Entry(cleared=user.cleared, user=user.id)


def _reason(state: State, user: User, before: Entry) -> str | None:
    if before.user and before.user != user.id:
        return f"{before.user} is not registered any more; {user.id} is"
    if state.current < before.cleared:
        return f"its changelog begins anew: its last record is {state.current}, and {before.cleared} was cleared"
    if user.cleared > before.cleared:
        return f"somebody else cleared up to {user.cleared} for {user.id}, and {before.cleared} was read"
    return None
