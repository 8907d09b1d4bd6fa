"""The FUSE mount of a simulated Lustre: ``fs/NAME`` for a filesystem, ``dev/changelog-NAME-MDTxxxx`` for each MDT."""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import mfusepy

from lb_lustre import fid
from lb_lustre.simulator.changelog import Changelog
from lb_lustre.simulator.filesystem import Filesystem
from lb_lustre.simulator.layout import FSXATTR, GET_FSXATTR, INHERIT_PROJECT, SET_FSXATTR
from lb_lustre.simulator.objects import Object, fail
from lbcore.model import ObjectId

_Result = TypeVar("_Result")
_SECOND = 10**9
_SPECIAL = (b".lustre", b".lustre/fid", b".lustre/lost+found")
_ASKED = "trusted.simulated."
"""Extended attributes by which the stand-in of liblustreapi asks (``liblustreapi.c``)."""
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS; 32 bits, whatever the number says."""
_TIME_NOW, _TIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
"""UTIME_NOW and UTIME_OMIT (linux/stat.h)."""
_ATOMIC_O_TRUNC, _IOCTL_DIR = 1 << 3, 1 << 11
"""FUSE_CAP_ATOMIC_O_TRUNC and FUSE_CAP_IOCTL_DIR (fuse_common.h)."""


@dataclass(slots=True)
class _Open:
    """An open file: content, or a changelog."""

    flags: int
    filesystem: Filesystem
    one: Object | None = None
    owner: tuple[int, int] = (0, 0)
    """User and group id of who opened it."""
    fd: int = -1
    written: bool = False
    """Whether it was written to."""
    changelog: Changelog | None = None
    at: int = 0
    """Where the kernel believes to be in a changelog's stand-in."""
    index: int = 1
    """Where its reader is: the next record."""
    never: frozenset[int] = frozenset()
    """Records that this reader is never given."""


class Mount(mfusepy.Operations):  # type: ignore[misc]
    """The operations of FUSE."""

    use_ns = True

    def __init__(self, filesystems: dict[str, Filesystem]) -> None:
        """
        :param filesystems: by name, the one that lives and its snapshots; may change while it is mounted.
        """
        self.mutex = threading.RLock()
        self._filesystems = filesystems
        self._open: dict[int, _Open] = {}
        self._handles = 0

    def init_with_config(self, connection: Any, config: Any) -> None:
        """The kernel is to hand on the ioctls of directories too, and what is emptied as it is opened."""
        if connection is not None:
            connection.want |= _IOCTL_DIR | _ATOMIC_O_TRUNC

    def open_files(self, filesystem: Filesystem, mdt: int) -> list[ObjectId]:
        """What is open on a metadata server."""
        opened = (one.one for one in self._open.values() if one.filesystem is filesystem)
        return sorted({one.fid for one in opened if one is not None and one.mdt == mdt})

    # -- where ------------------------------------------------------------------------------------------------

    def _split(self, path: str) -> tuple[str, str, bytes]:
        """``fs``, name and the rest; ``dev``, name and nothing."""
        where, _, rest = path.lstrip("/").partition("/")
        name, _, below = rest.partition("/")
        return where, name, os.fsencode(below)

    def _filesystem(self, path: str) -> tuple[Filesystem, bytes]:
        where, name, below = self._split(path)
        if where != "fs" or name not in self._filesystems:
            raise fail(errno.ENOENT)
        return self._filesystems[name], below

    def _find(self, path: str) -> tuple[Filesystem, Object]:
        filesystem, below = self._filesystem(path)
        return filesystem, filesystem.find(below)

    def _changelog(self, path: str) -> Changelog | None:
        where, name, _ = self._split(path)
        return self._devices().get(name) if where == "dev" else None

    def _devices(self) -> dict[str, Changelog]:
        return {
            f"changelog-{name}-MDT{changelog.mdt:04x}": changelog
            for name, filesystem in self._filesystems.items()
            for changelog in filesystem.changelogs
        }

    def _writable(self, path: str) -> tuple[Filesystem, bytes]:
        filesystem, below = self._filesystem(path)
        if filesystem.frozen:
            raise fail(errno.EROFS)
        return filesystem, below

    # -- looking ----------------------------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        where, name, below = self._split(path)
        if self._changelog(path) is not None:
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": 0}
        folder = not where or (where in ("fs", "dev") and not name)
        if folder or below in _SPECIAL:
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        filesystem, one = self._find(path)
        size = 4096 if one.is_directory else len(one.link_target)
        blocks = 8
        if stat.S_ISREG(one.mode):
            there = os.stat(filesystem.content_path(one.fid))
            size, blocks = there.st_size, 1 if one.kept.is_released else there.st_blocks
        atime, mtime, ctime = (moment * _SECOND for moment in one.times)
        return {
            "st_mode": one.mode, "st_nlink": filesystem.link_count(one), "st_uid": one.uid, "st_gid": one.gid,
            "st_size": size, "st_blocks": blocks, "st_rdev": one.rdev, "st_ino": _number(one.fid),
            "st_atime": atime, "st_mtime": mtime, "st_ctime": ctime,
        }  # fmt: skip

    def readdir(self, path: str, fh: int) -> Iterable[tuple[str, dict[str, int], int]]:
        where, name, _ = self._split(path)
        numbers: Mapping[str, int]
        if not where:
            numbers = dict.fromkeys(("fs", "dev"), 1)
        elif not name:
            numbers = dict.fromkeys(self._filesystems if where == "fs" else self._devices(), 1)
        else:  # .lustre is not listed
            numbers = {os.fsdecode(entry): _number(child) for entry, child in self._find(path)[1].entries.items()}
        return [(entry, {"st_ino": number}, 0) for entry, number in {".": 1, "..": 1, **numbers}.items()]

    def readlink(self, path: str) -> str:
        return os.fsdecode(self._find(path)[1].link_target)

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        if self._split(path)[0] != "fs":
            raise fail(errno.ENODATA)
        filesystem, one = self._find(path)
        if name.startswith(_ASKED):
            return _answer(filesystem, one, name.removeprefix(_ASKED))
        value = filesystem.xattrs(one).get(name, one.kept.unlisted(name))
        if value is None:
            raise fail(errno.ENODATA)
        return value

    def listxattr(self, path: str) -> list[str]:
        if self._split(path)[0] != "fs":
            return []
        filesystem, one = self._find(path)
        return list(filesystem.xattrs(one))

    def statfs(self, path: str) -> dict[str, int]:
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 1 << 30, "f_bfree": 1 << 29, "f_bavail": 1 << 29,
                "f_namemax": 255}  # fmt: skip

    # -- names ------------------------------------------------------------------------------------------------

    def _make(self, path: str, mode: int, **more: Any) -> Object:
        filesystem, below = self._writable(path)
        uid, gid, _ = mfusepy.fuse_get_context()
        return filesystem.make(below, mode, uid=uid, gid=gid, **more)

    def mkdir(self, path: str, mode: int) -> int:
        self._make(path, stat.S_IFDIR | mode & 0o7777)
        return 0

    def mknod(self, path: str, mode: int, dev: int) -> int:
        self._make(path, mode if stat.S_IFMT(mode) else mode | stat.S_IFREG, rdev=dev)
        return 0

    def symlink(self, target: str, source: str) -> int:
        self._make(target, stat.S_IFLNK | 0o777, target=os.fsencode(source))
        return 0

    def link(self, target: str, source: str) -> int:
        filesystem, below = self._writable(target)
        filesystem.link(self._filesystem(source)[1], below)
        return 0

    def unlink(self, path: str) -> int:
        filesystem, below = self._writable(path)
        filesystem.unlink(below)
        return 0

    def rmdir(self, path: str) -> int:
        filesystem, below = self._writable(path)
        filesystem.rmdir(below)
        return 0

    def rename(self, old: str, new: str) -> int:
        filesystem, below = self._writable(new)
        filesystem.rename(self._filesystem(old)[1], below)
        return 0

    # -- attributes -------------------------------------------------------------------------------------------

    def _change(self, path: str, change: Callable[[Filesystem, Object], _Result]) -> _Result:
        filesystem, below = self._writable(path)
        return change(filesystem, filesystem.find(below))

    def chmod(self, path: str, mode: int) -> int:
        self._change(path, lambda filesystem, one: filesystem.set_mode(one, mode))
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        self._change(path, lambda filesystem, one: filesystem.set_owner(one, uid, gid))
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        now = [_TIME_NOW, _TIME_NOW]
        atime, mtime = (_time_to_set(moment) for moment in times or now)
        self._change(path, lambda filesystem, one: filesystem.set_times(one, atime, mtime))
        return 0

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> int:
        if name == _ASKED + "import":
            self._change(path, lambda filesystem, one: filesystem.import_released(one, json.loads(bytes(value))))
        else:
            self._change(path, lambda filesystem, one: filesystem.set_xattr(one, name, bytes(value)))
        return 0

    def removexattr(self, path: str, name: str) -> int:
        self._change(path, lambda filesystem, one: filesystem.set_xattr(one, name, None))
        return 0

    def ioctl(self, path: str, cmd: int, arg: int, fh: int, flags: int, data: int) -> int:  # noqa: PLR0917 - as FUSE calls it
        """Project ids, and the flags of chattr(1)."""
        if cmd & 0xFFFFFFFF == GET_FSXATTR:
            kept = self._find(path)[1].kept
            found = FSXATTR.pack(INHERIT_PROJECT if kept.inherits_project else 0, 0, 0, kept.project, 0, bytes(8))
            ctypes.memmove(data, found, FSXATTR.size)
            return 0
        if cmd & 0xFFFFFFFF == SET_FSXATTR:
            xflags, _, _, project, _, _ = FSXATTR.unpack(ctypes.string_at(data, FSXATTR.size))
            inherits = bool(xflags & INHERIT_PROJECT)
            self._change(path, lambda filesystem, one: filesystem.give_project(one, project, inherits))
            return 0
        if cmd & 0xFFFFFFFF == _GET_FLAGS:
            ctypes.memmove(data, struct.pack("=I", self._find(path)[1].kept.flags), 4)
            return 0
        if cmd & 0xFFFFFFFF == _SET_FLAGS:
            (wanted,) = struct.unpack("=I", ctypes.string_at(data, 4))
            self._change(path, lambda filesystem, one: filesystem.set_flags(one, wanted))
            return 0
        raise fail(errno.ENOTTY)

    # -- content ----------------------------------------------------------------------------------------------

    def _handle(self, opened: _Open) -> int:
        self._handles += 1
        self._open[self._handles] = opened
        return self._handles

    def create(self, path: str, mode: int, fi: int) -> int:
        # Not instantiated before it is written to: mknod(2) of a file comes here too.
        one = self._make(path, stat.S_IFREG | mode & 0o7777)
        return self._open_content(path, one, fi | os.O_CREAT, created=True)

    def open(self, path: str, flags: int) -> int:
        changelog = self._changelog(path)
        if changelog is not None:
            opened = _Open(flags=flags, filesystem=self._owner(path), changelog=changelog, never=changelog.opened())
            return self._handle(opened)
        filesystem, one = self._find(path)
        if filesystem.frozen and flags & os.O_ACCMODE != os.O_RDONLY:
            raise fail(errno.EROFS)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            filesystem.instantiate(one)
        handle = self._open_content(path, one, flags)
        if flags & os.O_TRUNC:
            filesystem.truncate(one, 0)
        return handle

    def _open_content(self, path: str, one: Object, flags: int, *, created: bool = False) -> int:
        filesystem, _ = self._filesystem(path)
        fd = os.open(filesystem.content_path(one.fid), flags & os.O_ACCMODE)
        return self._opened(_Open(flags=flags, filesystem=filesystem, one=one, owner=_caller(), fd=fd), created=created)

    def _opened(self, opened: _Open, *, created: bool = False) -> int:
        assert opened.one is not None
        if not opened.filesystem.frozen:
            opened.filesystem.opened(opened.one, opened.flags, opened.owner, created=created)
        return self._handle(opened)

    def opendir(self, path: str) -> int:
        where, name, below = self._split(path)
        if where != "fs" or not name or below in _SPECIAL:
            return 0
        filesystem, one = self._find(path)
        return self._opened(_Open(flags=os.O_RDONLY, filesystem=filesystem, one=one, owner=_caller()))

    def releasedir(self, path: str, fh: int) -> int:
        return self.release(path, fh) if fh else 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        opened = self._open[fh]
        if opened.changelog is None:
            if opened.one is not None and not opened.filesystem.frozen:
                opened.filesystem.read(opened.one)
            return os.pread(opened.fd, size, offset)
        if offset != opened.at:
            opened.index = max(offset, 1)  # lseek(2) on a changelog goes to a record (section 2)
        data, opened.index = opened.changelog.read(opened.index, size, opened.never)
        opened.at = offset + len(data)
        return data

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        opened = self._open[fh]
        if opened.changelog is not None:
            return self._command(opened.filesystem, opened.changelog, data)
        assert opened.one is not None
        opened.written = True
        return opened.filesystem.write(opened.one, opened.fd, data, offset)

    def _owner(self, path: str) -> Filesystem:
        """Whose changelog it is."""
        return self._filesystems[self._split(path)[1].removeprefix("changelog-").rpartition("-")[0]]

    @staticmethod
    def _command(filesystem: Filesystem, changelog: Changelog, data: bytes) -> int:
        """``clear:clN:INDEX`` (section 2)."""
        if filesystem.frozen:
            raise fail(errno.EROFS)
        word, _, rest = data.rstrip(b"\0\n").partition(b":")
        user, _, index = rest.rpartition(b":")
        if word != b"clear" or not index.isdigit() or len(data) > 64:
            raise fail(errno.EINVAL)
        changelog.clear(user.decode(), int(index))
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        if self._changelog(path) is not None:
            return 0

        self._change(path, lambda filesystem, one: filesystem.truncate(one, length))
        return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        opened = self._open[fh]
        if opened.one is not None:
            opened.filesystem.flush(opened.one)
        return 0

    def release(self, path: str, fh: int) -> int:
        opened = self._open.pop(fh)
        if opened.fd >= 0:
            os.close(opened.fd)
        if opened.one is not None and not opened.filesystem.frozen:
            opened.filesystem.closed(opened.one, opened.flags, opened.owner, written=opened.written)
        return 0


def _time_to_set(moment: int) -> int | None:
    """The second to set; None: as it is."""
    if moment in (_TIME_NOW, _TIME_OMIT):
        return int(time.time()) if moment == _TIME_NOW else None
    return moment // _SECOND


def _answer(filesystem: Filesystem, one: Object, question: str) -> bytes:
    """What the stand-in of liblustreapi wants to know, in the byte order of this machine."""
    word, _, which = question.partition(".")
    if word == "mdt_of":
        return struct.pack("=I", filesystem.server_of(fid.parse(which)))
    return struct.pack("=Q", filesystem.version(one, flush=word == "flushed_version"))


def _caller() -> tuple[int, int]:
    uid, gid, _ = mfusepy.fuse_get_context()
    return uid, gid


def _number(object_id: ObjectId) -> int:
    """An inode number; Lustre makes one of the FID in a like way (cl_fid_build_ino)."""
    sequence, number, _ = fid.unpack(object_id)
    return (sequence << 24) + number


def _exclusive(operation: Callable[..., _Result]) -> Callable[..., _Result]:
    @functools.wraps(operation)
    def alone(mount: Mount, *arguments: Any) -> _Result:
        with mount.mutex:
            return operation(mount, *arguments)

    return alone


# One operation, or one request of an administrator, at a time: what is simulated needs no locks of its own.
for _name in [name for name, value in vars(Mount).items() if not name.startswith("_") and callable(value)]:
    setattr(Mount, _name, _exclusive(getattr(Mount, _name)))


def serve(mount: Mount, folder: str) -> None:
    """Mount, and answer until it is unmounted. Nothing is cached by the kernel: what changes is seen at once."""
    mfusepy.FUSE(
        mount, folder, foreground=True, nothreads=True, allow_other=True, default_permissions=True, use_ino=True,
        direct_io=True, attr_timeout=0, entry_timeout=0, negative_timeout=0, hard_remove=True, fsname="lb-lustre",
    )  # fmt: skip
