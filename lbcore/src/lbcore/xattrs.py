"""Extended attributes and POSIX ACLs: read from the source, set on the target.

An ACL is the extended attribute ``system.posix_acl_access`` or ``…_default`` (acl(5)); it is kept in its binary form.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping

PREFIX = "xattr:"
"""What the key of an extended attribute begins with among an object's extras."""

_OF_SERVERS = frozenset(
    "trusted." + name
    for name in (
        *("dataver", "dmv", "fid", "hsm", "lfsck_bitmap", "lfsck_namespace", "lfsck_ns", "link", "lma", "lmv", "lov"),
        *("projid", "som", "version"),
    )
)
"""What the servers of Lustre keep with an object for themselves: wrong, or refused, anywhere else."""

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS)


def kept(name: str) -> bool:
    """Whether an attribute is backed up: not what the kernel derives, signs or labels for itself, nor our own."""
    if name.startswith(("user.", "trusted.")):
        return not name.startswith(("trusted.overlay.", "trusted.lb.")) and name not in _OF_SERVERS
    return name in ("security.capability", "system.posix_acl_access", "system.posix_acl_default")


def read(path: bytes) -> dict[str, bytes]:
    """The attributes of ``path`` itself (no link is followed), by their key among the extras.

    :raises OSError: when one is there and cannot be read.
    """
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return {}
        raise
    found = {}
    for name in names:
        if kept(name):
            try:
                found[PREFIX + name] = os.getxattr(path, name, follow_symlinks=False)
            except OSError as error:
                if error.errno != errno.ENODATA:  # removed meanwhile
                    raise
    return found


def write(path: bytes, extras: Mapping[str, bytes]) -> list[str]:
    """Make the attributes of ``path`` what ``extras`` says; returns the names the filesystem would not take.

    ``path`` may be ``/proc/self/fd/N``: links are followed, so that it reaches the open object.

    :raises OSError: for anything but a lack of support or of privilege.
    """
    wanted = {key[len(PREFIX) :]: value for key, value in extras.items() if key.startswith(PREFIX)}
    refused: list[str] = []
    try:
        present = [name for name in os.listxattr(path) if kept(name)]
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return sorted(wanted)
    for name in present:
        if name not in wanted:
            _tolerate(os.removexattr, path, name)
    return refused + [name for name, value in wanted.items() if not _tolerate(os.setxattr, path, name, value)]


def _tolerate(call: Callable[..., None], *arguments: bytes | str) -> bool:
    """Whether a call went well; False where the filesystem, or this user, cannot have such an attribute."""
    try:
        call(*arguments)
    except OSError as error:
        if error.errno in (*_UNSUPPORTED, errno.EPERM, errno.EACCES, errno.ENODATA):
            return False
        raise
    return True
