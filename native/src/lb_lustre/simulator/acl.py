"""Access ACLs as the kernel keeps them; they and the mode say the same of the owner, the group class and the others.

(acl(5); a version, and entries of tag, permissions and id: linux/posix_acl_xattr.h.)
"""

from __future__ import annotations

import struct

XATTR = "system.posix_acl_access"
MINIMAL_BYTES = 4 + 3 * 8
"""An ACL so long says no more than the mode does."""
_ENTRY = struct.Struct("<HHI")
_OWNER, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20


def _entries(acl: bytes) -> list[tuple[int, int, int]]:
    return list(_ENTRY.iter_unpack(acl[4:]))


def mode_of(acl: bytes) -> int:
    """The permissions that an access ACL says."""
    found = {tag: permissions for tag, permissions, _ in _entries(acl)}
    return found[_OWNER] << 6 | found.get(_MASK, found[_GROUP]) << 3 | found[_OTHER]


def with_mode(acl: bytes, mode: int) -> bytes:
    """An access ACL once the permissions have changed."""
    entries = _entries(acl)
    group = _MASK if any(tag == _MASK for tag, _, _ in entries) else _GROUP
    classes = {_OWNER: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    return acl[:4] + b"".join(_ENTRY.pack(tag, classes.get(tag, old), who) for tag, old, who in entries)
