"""Verifier ``attributes``: is everything there, of its kind, with its attributes?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from lbcore import xattrs
from lbcore.beneath import Root
from lbcore.plugins.types import Damage, Expected


class Attributes:
    """Looks at each object; reads no content."""

    def verify(self, tree: bytes, objects: Iterable[Expected]) -> Iterator[Damage]:
        """Compare ``lstat``, link targets and extended attributes."""
        privileged = os.geteuid() == 0
        with Root(tree) as root:
            for expected in objects:
                for what in _differences(root, expected, privileged):
                    yield Damage(path=expected.path, what=what)


def _differences(root: Root, expected: Expected, privileged: bool) -> Iterator[str]:
    try:
        parent, name = root.parent(expected.path) if expected.path else (root.fd, b".")
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if privileged or not (stat.S_ISBLK(expected.mode) or stat.S_ISCHR(expected.mode)):
            yield f"is missing ({error.strerror})"
        return
    if stat.S_IFMT(there.st_mode) != stat.S_IFMT(expected.mode):
        yield "is of another kind"
        return
    owner = (there.st_uid, there.st_gid) == (expected.uid, expected.gid)
    if not owner and privileged:
        yield f"belongs to {there.st_uid}:{there.st_gid} instead of {expected.uid}:{expected.gid}"
    ignored = 0 if owner else stat.S_ISUID | stat.S_ISGID
    if not stat.S_ISLNK(expected.mode) and (there.st_mode ^ expected.mode) & 0o7777 & ~ignored:
        yield f"has mode {there.st_mode & 0o7777:o} instead of {expected.mode & 0o7777:o}"
    if there.st_mtime_ns != expected.mtime_ns:
        yield "has another modification time"
    if stat.S_ISREG(expected.mode) and there.st_size != expected.size:
        yield f"has {there.st_size} bytes instead of {expected.size}"
    if stat.S_ISLNK(expected.mode) and os.readlink(name, dir_fd=parent) != expected.link_target:
        yield "points elsewhere"
    if there.st_rdev != expected.rdev and (stat.S_ISBLK(expected.mode) or stat.S_ISCHR(expected.mode)):
        yield "is another device"
    if privileged and not stat.S_ISLNK(expected.mode):
        present = xattrs.read(b"/proc/self/fd/%d/%s" % (parent, name))
        for key in sorted(present.keys() | expected.extras.keys()):
            if key.startswith(xattrs.PREFIX) and present.get(key) != expected.extras.get(key):
                yield f"has another value of {key[len(xattrs.PREFIX) :]}"
