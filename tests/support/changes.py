"""Changes of a tree, as small programs: what a random one is made of, and the system calls Python lacks."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import socket
import stat
import struct
from collections.abc import Callable
from typing import NamedTuple

NAMES = (b"a", b"b", b"run1", b"run10", b"\xff\n", b"-e $x 'y'")
ROOT_USER = os.geteuid() == 0
_MODES = (0o644, 0o600, 0o755, 0o4755, 0o2711, 0o1777, 0o777, 0o700)
_MODES_OF_ROOT = (0, 0o111, 0o6000)
_libc = ctypes.CDLL(None, use_errno=True)


class Change(NamedTuple):
    """One change: numbers that choose among what is there when it is made."""

    kind: str
    first: int
    second: int
    value: int


def exchange(one: bytes, other: bytes) -> None:
    """Swap two paths in one step: renameat2(2) with RENAME_EXCHANGE."""
    if _libc.renameat2(-100, one, -100, other, 2) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), one, None, other)


def punch_hole(path: bytes, offset: int, length: int) -> None:
    """Give a part of a file back: fallocate(2) with PUNCH_HOLE and KEEP_SIZE."""
    with open(path, "r+b") as file:
        result = _libc.fallocate(file.fileno(), 3, ctypes.c_long(offset), ctypes.c_long(length))
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def acl(*, user: int, permissions: int) -> bytes:
    """An access control list as the kernel keeps it: rwx for the owner, ``permissions`` for one more user."""
    none = 0xFFFFFFFF
    entries = [(1, 7, none), (2, permissions, user), (4, 5, none), (16, 7, none), (32, 0, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def write(path: bytes, content: bytes) -> None:
    """Make a file, or give it other content."""
    with open(path, "wb") as file:
        file.write(content)


def listing(root: bytes) -> tuple[list[bytes], list[bytes]]:
    """All directories below and with ``root``, and all else, as sorted absolute paths."""
    directories: list[bytes] = [root]
    others: list[bytes] = []
    for path, folders, files in os.walk(root):
        for name in folders:
            below = os.path.join(path, name)
            (others if os.path.islink(below) else directories).append(below)
        others += [os.path.join(path, name) for name in files]
    return sorted(directories), sorted(others)


class Changer:
    """Makes changes in a tree. What is impossible as things stand (a loop, a full directory) is left out."""

    def __init__(self, root: bytes, outside: bytes) -> None:
        """``outside`` is a folder of the same filesystem that the backup does not cover."""
        self.root, self.outside = root, outside
        os.makedirs(outside, exist_ok=True)

    def make(self, change: Change) -> None:
        """Make one change."""
        with contextlib.suppress(OSError, LookupError):
            KINDS[change.kind](self, change)

    # -- what a change is about ---------------------------------------------------------------------------------

    def directory(self, number: int) -> bytes:
        directories = listing(self.root)[0]
        return directories[number % len(directories)]

    def inner(self, number: int) -> bytes:
        """A directory other than the root."""
        directories = listing(self.root)[0][1:]
        return directories[number % len(directories)] if directories else self.nothing()

    def other(self, number: int) -> bytes:
        """Anything but a directory."""
        others = listing(self.root)[1]
        return others[number % len(others)] if others else self.nothing()

    def file(self, number: int) -> bytes:
        files = [path for path in listing(self.root)[1] if stat.S_ISREG(os.lstat(path).st_mode)]
        return files[number % len(files)] if files else self.nothing()

    def anything(self, number: int) -> bytes:
        directories, others = listing(self.root)
        everything = sorted(directories[1:] + others)
        return everything[number % len(everything)] if everything else self.nothing()

    def nothing(self) -> bytes:
        raise LookupError

    def place(self, number: int, name: int) -> bytes:
        """A path that may be there already."""
        return os.path.join(self.directory(number), NAMES[name % len(NAMES)])

    # -- changes ------------------------------------------------------------------------------------------------

    def create(self, change: Change) -> None:
        path = self.place(change.first, change.second)
        if not os.path.lexists(path) or stat.S_ISREG(os.lstat(path).st_mode):
            write(path, random.Random(change.value).randbytes(change.value * 37 % 9000))

    def write(self, change: Change) -> None:
        write(self.file(change.first), random.Random(change.value).randbytes(change.second * 29))

    def append(self, change: Change) -> None:
        with open(self.file(change.first), "ab") as file:
            file.write(b"%d" % change.value)

    def truncate(self, change: Change) -> None:
        path = self.file(change.first)
        os.truncate(path, os.lstat(path).st_size * (change.value % 5) // 3)

    def rewrite(self, change: Change) -> None:
        """Other content, same size and times."""
        path = self.file(change.first)
        status = os.stat(path)
        write(path, random.Random(change.value).randbytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def touch(self, change: Change) -> None:
        path = self.anything(change.first)
        os.utime(path, ns=(0, change.value * 1_000_000_007), follow_symlinks=False)

    def mkdir(self, change: Change) -> None:
        os.mkdir(self.place(change.first, change.second))

    def rename(self, change: Change) -> None:
        os.rename(self.anything(change.first), self.place(change.second, change.value))

    def rename_over(self, change: Change) -> None:
        os.rename(self.anything(change.first), self.anything(change.second))

    def into_child(self, change: Change) -> None:
        """A directory becomes a child of what takes its name."""
        path = self.inner(change.first)
        temporary = os.path.join(self.root, b"temporary")
        os.rename(path, temporary)
        os.mkdir(path)
        os.rename(temporary, os.path.join(path, NAMES[change.second % len(NAMES)]))

    def child_up(self, change: Change) -> None:
        """A directory takes the place of its parent, which becomes its child."""
        child = self.inner(change.first)
        parent = os.path.dirname(child)
        if parent == self.root:
            return
        temporary = os.path.join(self.root, b"temporary")
        os.rename(child, temporary)
        os.rename(parent, os.path.join(temporary, NAMES[change.second % len(NAMES)]))
        os.rename(temporary, parent)

    def exchange(self, change: Change) -> None:
        exchange(self.anything(change.first), self.anything(change.second))

    def swap(self, change: Change) -> None:
        one, other = self.anything(change.first), self.anything(change.second)
        temporary = os.path.join(self.root, b"temporary")
        os.rename(one, temporary)
        try:
            os.rename(other, one)
        finally:
            os.rename(temporary, other if not os.path.lexists(other) else one)

    def link(self, change: Change) -> None:
        os.link(self.other(change.first), self.place(change.second, change.value), follow_symlinks=False)

    def unlink(self, change: Change) -> None:
        os.unlink(self.other(change.first))

    def remove_tree(self, change: Change) -> None:
        shutil.rmtree(self.inner(change.first))

    def recreate(self, change: Change) -> None:
        """Another object under the same name; the filesystem may give it the same number."""
        path = self.anything(change.first)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
            if change.value % 2:
                os.mkdir(path)
                return
        else:
            os.unlink(path)
        write(path, b"%d" % change.value)

    def symlink(self, change: Change) -> None:
        targets = (b"a", b"../b", b"/nowhere", b"/etc", b".", b"\xfe\n" * 100)
        os.symlink(targets[change.value % len(targets)], self.place(change.first, change.second))

    def replace_by_symlink(self, change: Change) -> None:
        path = self.anything(change.first)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
        os.symlink(self.outside, path)

    def fifo(self, change: Change) -> None:
        os.mkfifo(self.place(change.first, change.second))

    def socket(self, change: Change) -> None:
        path = self.place(change.first, change.second)
        here = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(b"/proc/self/fd/%d/%s" % (here, os.path.basename(path)))
        finally:
            os.close(here)

    def device(self, change: Change) -> None:
        kind = stat.S_IFCHR if change.value % 2 else stat.S_IFBLK
        os.mknod(self.place(change.first, change.second), kind | 0o600, os.makedev(1, change.value))

    def chmod(self, change: Change) -> None:
        modes = _MODES + (_MODES_OF_ROOT if ROOT_USER else ())
        path = self.anything(change.first)
        mode = modes[change.value % len(modes)]
        if not ROOT_USER and os.path.isdir(path):
            mode |= 0o700  # an ordinary user could not look into it any more, and neither could lb
        if not os.path.islink(path):
            os.chmod(path, mode)

    def chown(self, change: Change) -> None:
        os.chown(self.anything(change.first), change.second % 3 * 1000, change.value % 3 * 1000, follow_symlinks=False)

    def set_xattr(self, change: Change) -> None:
        name = b"user.%d" % (change.second % 3) if not ROOT_USER or change.second % 2 else b"trusted.x"
        os.setxattr(self.anything(change.first), name, b"\0" * (change.value % 4), follow_symlinks=False)

    def remove_xattr(self, change: Change) -> None:
        path = self.anything(change.first)
        for name in os.listxattr(path, follow_symlinks=False):
            if not name.startswith("security.selinux"):
                os.removexattr(path, name, follow_symlinks=False)

    def set_acl(self, change: Change) -> None:
        path = self.anything(change.first)
        default = change.second % 2 and os.path.isdir(path) and not os.path.islink(path)
        name = "system.posix_acl_default" if default else "system.posix_acl_access"
        os.setxattr(path, name, acl(user=1000 + change.second % 2, permissions=change.value % 8), follow_symlinks=False)

    def sparse(self, change: Change) -> None:
        path = self.place(change.first, change.second)
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            return
        with open(path, "wb") as file:
            file.truncate((change.value % 40) * 100_000)
            for block in range(change.value % 3):
                file.seek(block * 300_000)
                file.write(b"data %d" % block)

    def punch(self, change: Change) -> None:
        path = self.file(change.first)
        punch_hole(path, change.second * 512, 4096 * (1 + change.value))

    def move_out(self, change: Change) -> None:
        """Out of what is backed up, whole."""
        os.rename(self.anything(change.first), os.path.join(self.outside, NAMES[change.second % len(NAMES)]))

    def move_in(self, change: Change) -> None:
        """Into what is backed up, with times of long ago."""
        there = sorted(os.listdir(self.outside)) or [self.nothing()]
        os.rename(os.path.join(self.outside, there[change.first % len(there)]), self.place(change.second, change.value))


KINDS: dict[str, Callable[[Changer, Change], None]] = {
    name: method
    for name, method in vars(Changer).items()
    if callable(method)
    and name not in ("__init__", "make", "directory", "inner", "other", "file", "anything", "nothing", "place")
    and not name.startswith("_")
}
if not ROOT_USER:
    for _kind in ("device", "chown"):
        del KINDS[_kind]
