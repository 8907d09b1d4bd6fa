"""A simulated Lustre: what is done to objects that are found, their attributes and content, and what that records."""

from __future__ import annotations

import copy
import errno
import os
import shutil
import stat
import struct
import time
from typing import Any

import xxhash

from lb_lustre import fid, layout
from lb_lustre.extras import DEFAULT_STRIPES_XATTR
from lb_lustre.record import Type
from lb_lustre.simulator import acl
from lb_lustre.simulator.namespace import Namespace
from lb_lustre.simulator.objects import Object, fail, hash_of, link_ea
from lb_lustre.simulator.recording import open_bits
from lbcore.model import ObjectId

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_TRUNC


class Filesystem(Namespace):
    """A filesystem of several metadata servers."""

    def snapshot(self, name: str, contents: bytes) -> Filesystem:
        """The filesystem as it is now, which never changes; its changelogs end at the same moment."""
        frozen = copy.deepcopy(self)
        frozen.name, frozen.contents, frozen.frozen, frozen._unsent = name, contents, True, set()
        os.makedirs(contents)
        for one in self.objects.values():
            if stat.S_ISREG(one.mode):
                shutil.copyfile(self._sent_path(one.fid), frozen.content_path(one.fid))
        return frozen

    # -- attributes ---------------------------------------------------------------------------------------------

    def set_mode(self, one: Object, mode: int) -> None:
        """chmod(2)."""
        one.mode = stat.S_IFMT(one.mode) | mode & 0o7777
        if acl.XATTR in one.xattrs:
            one.xattrs[acl.XATTR] = acl.with_mode(one.xattrs[acl.XATTR], mode)
        one.touch(content=False)
        self._changed(one, Type.SATTR, type_flags=0x14)

    def set_owner(self, one: Object, uid: int, gid: int) -> None:
        """chown(2); -1 stays as it is."""
        valid = 0x84 if stat.S_ISREG(one.mode) else 0x4  # of a file, its blocks change hands too
        if uid not in (-1, 0xFFFFFFFF):
            one.uid, valid = uid, valid | 0x20
        if gid not in (-1, 0xFFFFFFFF):
            one.gid, valid = gid, valid | 0x40
        one.touch(content=False)
        self._changed(one, Type.SATTR, type_flags=valid)

    def set_times(self, one: Object, atime: int | None, mtime: int | None) -> None:
        """utimensat(2); None stays as it is. Of what is set, only the first of MTIME, CTIME, ATIME is recorded."""
        one.times = [
            one.times[0] if atime is None else atime,
            one.times[1] if mtime is None else mtime,
            int(time.time()),
        ]
        if mtime is None:
            self._changed(one, Type.CTIME, type_flags=0x5)
        else:
            self._changed(one, Type.MTIME, type_flags=0x6 | (atime is not None), parent=self._first_parent(one))

    @staticmethod
    def _first_parent(one: Object) -> ObjectId:
        return next(iter(one.links), (bytes(16), b""))[0]

    def set_xattr(self, one: Object, name: str, value: bytes | None) -> None:
        """Set an extended attribute, or remove it (None).

        :raises OSError: ENODATA when there is none to remove.
        """
        before = one.kept.layout
        if value is not None and one.kept.takes(name, value):
            if one.kept.layout is not before:
                one.touch(content=False)
                self._changed(one, Type.LYOUT)
            elif name == DEFAULT_STRIPES_XATTR:
                one.touch(content=False)
                self._changed(one, Type.XATTR, xattr=os.fsencode(name))
            return
        if value is None:
            if name not in one.xattrs:
                raise fail(errno.ENODATA)
            del one.xattrs[name]
        else:
            one.xattrs[name] = value
            if name == acl.XATTR:
                one.mode = stat.S_IFMT(one.mode) | one.mode & 0o7000 | acl.mode_of(value)
                if len(value) == acl.MINIMAL_BYTES:
                    del one.xattrs[name]  # it says no more than the mode does
        one.touch(content=False)
        if name == acl.XATTR:
            self._changed(one, Type.CTIME, type_flags=0x4)  # section 9, item 16
        else:
            self._changed(one, Type.XATTR, xattr=os.fsencode(name))

    def xattrs(self, one: Object) -> dict[str, bytes]:
        """All extended attributes, those included that the servers keep for themselves."""
        found = {**one.xattrs, **one.kept.listed()}
        found["trusted.lma"] = bytes(8) + struct.pack("<QII", *fid.unpack(one.fid))
        links = self._link_ea(one)
        if links:
            found["trusted.link"] = links
        return found

    def _link_ea(self, one: Object) -> bytes:
        names = [(self._told_parent(one, parent, name), name) for parent, name in one.links]
        return b"" if one.fid == fid.ROOT else link_ea(names)

    def _told_parent(self, one: Object, parent: ObjectId, name: bytes) -> ObjectId:
        """How a link EA names a directory: of a striped one, the shard that the name is in (recorded: ``e_dne``)."""
        if parent in one.stale_parents:
            return one.stale_parents[parent]
        shards = self.objects[parent].shards
        return shards[hash_of(name) % len(shards)] if shards and one.fid not in shards else parent

    # -- content ------------------------------------------------------------------------------------------------

    def version(self, one: Object, *, flush: bool) -> int:
        """``data_version``: equal where content is equal, in snapshots too (section 9, item 2).

        :param flush: writers send what they have cached first.
        """
        one.flushes += flush
        if flush:
            self.flush(one)
        with open(self._sent_path(one.fid), "rb") as file:
            return xxhash.xxh3_64_intdigest(file.read())

    def instantiate(self, one: Object) -> None:
        """A file is going to be written to: from now on it has objects, and keeps its layout."""
        self._instantiate(one, 0)

    def _instantiate(self, one: Object, upto: int) -> None:
        for _ in range(one.kept.instantiate(fid.unpack(one.fid)[1], upto)):
            self._changed(one, Type.LYOUT)

    def opened(self, one: Object, flags: int, owner: tuple[int, int], *, created: bool = False) -> None:
        """Somebody opened a file or directory; how often the same user did it in the same way is recorded once."""
        bits = open_bits(flags)
        by = (*owner, bits & 0x3)
        one.opens[by] = one.opens.get(by, 0) + 1
        self.released_opened += one.kept.is_released
        if one.opens[by] == 1:
            bits |= 0x8 if created else 0
            self._changed(one, Type.OPEN, type_flags=bits, open_flags=bits)

    def closed(self, one: Object, flags: int, owner: tuple[int, int], *, written: bool = False) -> None:
        """Somebody closed it: recorded of those who only read where OPEN is in a mask (section 9, items 10 and 15).

        :param written: the client sends the time of its writing too.
        """
        bits = open_bits(flags)
        by = (*owner, bits & 0x3)
        one.opens[by] -= 1
        if written:
            self._changed(one, Type.MTIME, type_flags=0x6, parent=self._first_parent(one))
        opens_recorded = Type.OPEN in self.changelogs[one.mdt].mask
        if (opens_recorded and not one.opens[by]) or (not opens_recorded and flags & _WRITING):
            self._changed(one, Type.CLOSE, type_flags=bits)

    def read(self, one: Object) -> None:
        """Somebody reads: what is released comes back first."""
        if one.kept.is_released:
            self.recalled += 1
            self.recall(one)

    def open_volatile(self, mdt: int) -> None:
        """A file without a name, which is gone once it is closed: only that it was opened is recorded (item 17)."""
        bits = 0xCA
        self._record(
            mdt, Type.OPEN, Object(fid=self._new_fid(mdt), mdt=mdt, mode=stat.S_IFREG), type_flags=bits, open_flags=bits
        )

    def lay_out_anew(self, one: Object, wanted: layout.Layout) -> None:
        """``lfs migrate``: the content moves to other objects."""
        one.kept.lay_out_anew(wanted, fid.unpack(one.fid)[1])
        self._changed(one, Type.LYOUT)

    def swap_layouts(self, one: Object, other: Object) -> None:
        """Two files exchange their content; neither its names, owner nor times (section 9, item 17)."""
        for each in (one, other):
            self.flush(each)
        aside = self.content_path(one.fid) + b".swapped"
        os.rename(self.content_path(one.fid), aside)
        os.rename(self.content_path(other.fid), self.content_path(one.fid))
        os.rename(aside, self.content_path(other.fid))
        one.kept.layout, other.kept.layout = other.kept.layout, one.kept.layout
        for each in (other, one):
            self._changed(each, Type.LYOUT)

    def set_hsm(self, one: Object, states: int, archive: int) -> None:
        """``lfs hsm_set``."""
        one.kept.set_hsm(states, archive)
        self._changed(one, Type.HSM, type_flags=5 << 7)

    def release(self, one: Object) -> None:
        """``lfs hsm_release``, after it was archived."""
        shutil.copyfile(self.content_path(one.fid), self._archive_path(one.fid))
        one.kept.release()
        self._changed(one, Type.HSM, type_flags=3 << 7)

    def recall(self, one: Object) -> None:
        """``lfs hsm_restore``.

        :raises OSError: ENODATA when the archive has nothing under its FID; the record says ENOENT.
        """
        if not os.path.exists(self._archive_path(one.fid)):
            self._changed(one, Type.HSM, type_flags=1 << 7 | errno.ENOENT)
            raise fail(errno.ENODATA)
        shutil.copyfile(self._archive_path(one.fid), self.content_path(one.fid))
        one.kept.recall()
        self._changed(one, Type.HSM, type_flags=1 << 7)

    def _archive_path(self, object_id: ObjectId) -> bytes:
        return self.content_path(object_id) + b".archive"

    def rebind(self, old: ObjectId, new: ObjectId) -> None:
        """``lhsmtool_posix --rebind``: what the archive has under another FID.

        :raises OSError: ENOENT when it has nothing.
        """
        os.rename(self._archive_path(old), self._archive_path(new))

    def import_released(self, one: Object, wanted: dict[str, Any]) -> None:
        """``llapi_hsm_import`` of a file that was just made: its layout, state of HSM and attributes.

        :raises OSError: EINVAL for a pool that is not there.
        """
        one.kept.import_released(wanted)
        self._changed(one, Type.HSM, type_flags=5 << 7)
        one.mode, one.uid, one.gid = stat.S_IFREG | wanted["mode"] & 0o777, wanted["uid"], wanted["gid"]
        one.times = [wanted["mtime"], wanted["mtime"], int(time.time())]
        os.truncate(self.content_path(one.fid), wanted["size"])
        self._changed(one, Type.TRUNC, type_flags=0xE)

    def give_project(self, one: Object, project: int, inherits: bool) -> None:
        """``lfs project``."""
        one.kept.project, one.kept.inherits_project = project, inherits
        one.touch(content=False)
        self._changed(one, Type.SATTR, type_flags=0x200)

    def set_flags(self, one: Object, flags: int) -> None:
        """chattr(1)."""
        one.kept.flags = flags
        one.touch(content=False)
        self._changed(one, Type.SATTR, type_flags=0x200)

    def write(self, one: Object, fd: int, data: bytes, offset: int) -> int:
        """Content changes; nothing is recorded before the file is closed."""
        if self.late and one.fid in self.objects and one.fid not in self._unsent:
            shutil.copyfile(self.content_path(one.fid), self._servers_path(one.fid))
            self._unsent.add(one.fid)
        self._instantiate(one, offset + len(data))
        one.touch(content=True)
        return os.pwrite(fd, data, offset)

    def truncate(self, one: Object, length: int) -> None:
        """truncate(2). The servers do it at once, and keep what else they have (recorded: ``l_dirty``)."""
        if one.fid in self._unsent:
            os.truncate(self._servers_path(one.fid), length)
        os.truncate(self.content_path(one.fid), length)
        self.instantiate(one)
        one.touch(content=True)
        if one.kept.is_on_metadata_server:
            self._changed(one, Type.MTIME, type_flags=0x6, parent=self._first_parent(one))  # section 9, item 17
        else:
            self._changed(one, Type.TRUNC, type_flags=0xE)
