"""Read a tree and compare two, with nothing but the operating system: what backups are judged by.

None of the core's code is used here, so that no error of it can hide itself.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace

_BLOCK_BYTES = 4096
_READ_BYTES = 1 << 20
_HOLE_BYTES = 64 << 10
"""Holes smaller than this need not be kept."""
_PATH_BYTES = 2000
"""Longer paths are opened in pieces: the kernel takes 4096 bytes at once."""

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
_KEPT_XATTRS = ("user.", "trusted.", "security.capability", "system.posix_acl_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One name of a tree and what it names."""

    kind: str
    mode: int
    """Permission bits; 0 for symbolic links, which have none."""
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    """Bytes of a file; 0 for all else."""
    content: str = ""
    """Digest of a file's content; a hole is the same as zeros."""
    target: bytes = b""
    """Of a symbolic link."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    """Extended attributes and, in their binary form, ACLs."""
    links: tuple[bytes, ...] = ()
    """All paths in the tree that are names of this object, when there are several."""
    data_bytes: int = 0
    """How much of a file is no hole."""
    extents: int = 0
    """In how many pieces that is."""


Tree = dict[bytes, Node]
"""What each path of a tree names, ``b""`` being the directory at its top."""


def read_tree(path: str | bytes | os.PathLike[str], *, content: bool = True) -> Tree:
    """Everything in and below the directory ``path``; without ``content`` no file is opened.

    :raises OSError: when something cannot be read.
    """
    tree: Tree = {}
    names: dict[tuple[int, int], list[bytes]] = {}
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        waiting = [b""]
        while waiting:
            directory = waiting.pop()
            fd = _open_directory(root, directory)
            try:
                if not directory:
                    tree[b""] = _node(fd, b".", content)
                for name in map(os.fsencode, os.listdir(fd)):
                    below = directory + b"/" + name if directory else name
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    tree[below] = _node(fd, name, content)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(below)
                    elif status.st_nlink > 1:
                        names.setdefault((status.st_dev, status.st_ino), []).append(below)
            finally:
                os.close(fd)
    finally:
        os.close(root)
    for paths in names.values():
        if len(paths) > 1:
            for below in paths:
                tree[below] = replace(tree[below], links=tuple(sorted(paths)))
    return tree


def compare_trees(
    original: str | bytes | os.PathLike[str] | Tree,
    copy: str | bytes | os.PathLike[str] | Tree,
    *,
    ignore: Collection[str] = (),
) -> list[str]:
    """What is not the same, a line each; empty for equal trees. Either may be a path or what was read of one.

    A copy may have more holes than the original, and may lack small ones.

    :param ignore: fields of ``Node`` that may differ, such as ``uid``.
    """
    before = original if isinstance(original, dict) else read_tree(original)
    after = copy if isinstance(copy, dict) else read_tree(copy)
    found = []
    for path in sorted(before.keys() | after.keys()):
        shown = repr(path)[1:]
        if path not in after:
            found.append(f"{shown}: {before[path].kind} is missing")
        elif path not in before:
            found.append(f"{shown}: {after[path].kind} should not be there")
        else:
            found += [f"{shown}: {what}" for what in _differences(before[path], after[path], ignore)]
    return found


def _differences(before: Node, after: Node, ignore: Collection[str]) -> Iterator[str]:
    if before.kind != after.kind:
        yield f"{after.kind} instead of {before.kind}"
        return
    for field in fields(Node):
        if field.name in ("kind", "data_bytes", "extents", *ignore):
            continue
        was, now = getattr(before, field.name), getattr(after, field.name)
        if was != now:
            form = oct if field.name == "mode" else repr
            yield f"{field.name} is {form(now)} instead of {form(was)}"
    slack = _HOLE_BYTES * (before.extents + 1)
    if "data_bytes" not in ignore and after.data_bytes > before.data_bytes + slack:
        yield f"{after.data_bytes} bytes are no hole, instead of {before.data_bytes}"


def _node(directory: int, name: bytes, content: bool) -> Node:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    node = Node(
        kind=_KINDS[kind],
        mode=0 if kind == stat.S_IFLNK else stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        xattrs=_xattrs(b"/proc/self/fd/%d/%s" % (directory, name)),
    )
    if kind == stat.S_IFREG:
        node = replace(node, size=status.st_size)
        if content:
            digest, data_bytes, extents = _content(directory, name, status.st_size)
            node = replace(node, content=digest, data_bytes=data_bytes, extents=extents)
    elif kind == stat.S_IFLNK:
        node = replace(node, target=os.readlink(name, dir_fd=directory))
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        node = replace(node, device=(os.major(status.st_rdev), os.minor(status.st_rdev)))
    return node


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ()
        raise
    kept = sorted(name for name in names if name.startswith(_KEPT_XATTRS))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in kept)


def _content(directory: int, name: bytes, size: int) -> tuple[str, int, int]:
    """Digest, bytes that are no hole, number of their pieces. Blocks of zeros do not go into the digest."""
    digest = hashlib.blake2b(digest_size=16)
    data_bytes = extents = 0
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        at = 0
        for start, end in _extents(fd, size):
            data_bytes += end - start
            extents += 1
            at = max(at, start - start % _BLOCK_BYTES)
            while at < end:
                data = os.pread(fd, min(_READ_BYTES, -(-(end - at) // _BLOCK_BYTES) * _BLOCK_BYTES), at)
                for offset in range(0, len(data), _BLOCK_BYTES):
                    block = data[offset : offset + _BLOCK_BYTES].rstrip(b"\0")
                    if block:
                        digest.update(b"%d:%d:" % (at + offset, len(block)) + block)
                if not data:
                    break
                at += len(data)
    finally:
        os.close(fd)
    return digest.hexdigest(), data_bytes, extents


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes (lseek(2))."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start >= size:
            return
        yield start, end


def _open_directory(root: int, path: bytes) -> int:
    """The directory ``path`` below ``root``, however long the path is; no symbolic link is followed."""
    fd = os.dup(root) if path else os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    names = path.split(b"/") if path else []
    while names:
        piece = names.pop(0)
        while names and len(piece) + len(names[0]) < _PATH_BYTES:
            piece += b"/" + names.pop(0)
        deeper = os.open(piece, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        os.close(fd)
        fd = deeper
    return fd
