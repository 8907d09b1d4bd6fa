"""Set owner, mode, times, extended attributes and ACLs of one object; the same for every transfer."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import NamedTuple

from lbcore import xattrs


class Wish(NamedTuple):
    """The attributes an object is to have."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    extras: Mapping[str, bytes]


_CAP_CHOWN = 1 << 0
"""capabilities(7), linux/capability.h"""


def is_privileged() -> bool:
    """Whether this process may give files away: root may, unless a container took the capability from it."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), _CAP_CHOWN)
    return bool(effective & _CAP_CHOWN)


def set_attributes(fd: int, wish: Wish, *, privileged: bool) -> list[str]:
    """Give the object open as ``fd`` (``O_PATH`` will do) its attributes.

    Returns what the target could not take (it stays in the catalog): names of extended attributes, and
    ``owner`` where an ordinary user may not give a file away.

    :raises OSError: for any other failure; it names the object's path.
    """
    path = b"/proc/self/fd/%d" % fd  # fchmod(2) and others refuse O_PATH descriptors; through /proc they work
    try:
        return _set(fd, path, wish, privileged)
    except OSError as error:
        error.filename = os.readlink(path)
        raise


def _set(fd: int, path: bytes, wish: Wish, privileged: bool) -> list[str]:
    now = os.fstat(fd)
    refused = []
    mode = stat.S_IMODE(wish.mode)
    if (now.st_uid, now.st_gid) != (wish.uid, wish.gid) and not _change_owner(path, wish, privileged):
        refused.append("owner")
        mode &= ~(stat.S_ISUID | stat.S_ISGID)  # these bits are the owner's, who is not here
    # The order matters: a change of owner clears set-uid bits and capabilities, an ACL changes the mode.
    refused += xattrs.write(path, wish.extras)
    if not stat.S_ISLNK(wish.mode) and stat.S_IMODE(os.fstat(fd).st_mode) != mode:
        os.chmod(path, mode)
    if now.st_mtime_ns != wish.mtime_ns:
        os.utime(path, ns=(wish.mtime_ns, wish.mtime_ns))
    return refused


def _change_owner(path: bytes, wish: Wish, privileged: bool) -> bool:
    try:
        os.chown(path, wish.uid, wish.gid)
    except PermissionError:
        if privileged:
            raise
        return False
    return True
