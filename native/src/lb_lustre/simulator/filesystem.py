"""The objects of a simulated Lustre, their names, and what each operation records."""

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
from lb_lustre.simulator.changelog import Changelog
from lb_lustre.simulator.layout import Kept
from lb_lustre.simulator.objects import Object, fail, hash_of, link_ea
from lb_lustre.simulator.recording import Recorder, open_bits
from lbcore.model import ObjectId

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_TRUNC
_FIRST_SEQUENCE = 0x200000400
_SEQUENCES_APART = 0x40000000
_FNV_1A_64 = 2
"""By which hash of their names entries of a migrated directory are divided."""


def _lost_and_found(mdt: int) -> Object:
    """What a server has once LFSCK was started on it."""
    number = fid.pack(_FIRST_SEQUENCE + mdt * _SEQUENCES_APART + 1, 1, 0)
    return Object(fid=number, mdt=mdt, mode=stat.S_IFDIR | 0o700)


class Filesystem:
    """A filesystem of several metadata servers. Paths are bytes, relative to its root. Not for two threads at once."""

    def __init__(self, name: str, contents: bytes, mdts: int = 2) -> None:
        """
        :param contents: a folder for the content of files.
        """
        self.name = name
        self.contents = contents
        self.changelogs = [Changelog(number) for number in range(mdts)]
        self._recorder = Recorder()
        self.objects: dict[ObjectId, Object] = {
            fid.ROOT: Object(fid=fid.ROOT, mdt=0, mode=stat.S_IFDIR | 0o755, links={(fid.ROOT, b""): None})
        }
        self.frozen = False
        """Whether this is a snapshot."""
        self.disconnected: dict[int, int] = {}
        """Servers that do not answer, by number, and the errno that this client gives for their objects."""
        self._lost_and_found = {b"MDT%04x" % mdt: _lost_and_found(mdt) for mdt in range(mdts)}
        self.objects |= {one.fid: one for one in self._lost_and_found.values()}
        self.released_opened = self.recalled = 0
        """How often a released file was opened, and recalled by being read."""
        self.late = False
        """Whether clients keep what they write, until somebody makes them send it (``flush``)."""
        self._unsent: set[ObjectId] = set()
        """Files of which the servers have an older content than the client."""
        self._numbers = [0] * mdts
        os.makedirs(contents, exist_ok=True)

    def snapshot(self, name: str, contents: bytes) -> Filesystem:
        """The filesystem as it is now, which never changes; its changelogs end at the same moment."""
        frozen = copy.deepcopy(self)
        frozen.name, frozen.contents, frozen.frozen, frozen._unsent = name, contents, True, set()
        os.makedirs(contents)
        for one in self.objects.values():
            if stat.S_ISREG(one.mode):
                shutil.copyfile(self._sent_path(one.fid), frozen.content_path(one.fid))
        return frozen

    # -- finding ------------------------------------------------------------------------------------------------

    def find(self, path: bytes) -> Object:
        """The object at a path; ``.lustre/fid/FID`` is any object, ``.lustre/lost+found/MDTxxxx`` one of that server.

        :raises OSError: ENOENT, ENOTDIR.
        """
        parts = [part for part in path.split(b"/") if part]
        one = self._reach(fid.ROOT)
        if parts[:2] == [b".lustre", b"fid"] and len(parts) > 2:
            try:
                one = self._reach(fid.parse(os.fsdecode(parts[2])))
            except ValueError:
                raise fail(errno.ENOENT) from None
            parts = parts[3:]
        elif parts[:2] == [b".lustre", b"lost+found"] and len(parts) == 3 and parts[2] in self._lost_and_found:
            return self._reach(self._lost_and_found[parts[2]].fid)
        for part in parts:
            if not one.is_directory:
                raise fail(errno.ENOTDIR)
            if part not in one.entries:
                raise fail(errno.ENOENT)
            one = self._reach(one.entries[part])
        return one

    def _reach(self, object_id: ObjectId) -> Object:
        server = self.server_of(object_id)
        if server in self.disconnected:
            raise fail(self.disconnected[server])
        if object_id not in self.objects:
            raise fail(errno.ENOENT)
        return self.objects[object_id]

    def server_of(self, object_id: ObjectId) -> int:
        """The number of the metadata server that has, or had, an object: each has sequences of its own."""
        sequence, _, _ = fid.unpack(object_id)
        return max(sequence - _FIRST_SEQUENCE, 0) // _SEQUENCES_APART

    def _place(self, path: bytes) -> tuple[Object, bytes]:
        head, _, name = path.rstrip(b"/").rpartition(b"/")
        if len(name) > 255:
            raise fail(errno.ENAMETOOLONG)
        parent = self.find(head)
        if not parent.is_directory:
            raise fail(errno.ENOTDIR)
        return parent, name

    def content_path(self, object_id: ObjectId) -> bytes:
        """Where the content of a file is."""
        return os.path.join(self.contents, object_id.hex().encode())

    def link_count(self, one: Object) -> int:
        """``st_nlink``."""
        if one.is_directory:
            return 2 + sum(self.objects[child].is_directory for child in one.entries.values())
        return len(one.links)

    # -- recording ----------------------------------------------------------------------------------------------

    def _record(self, mdt: int, kind: Type, one: Object | None, **fields: Any) -> None:
        record = self._recorder.fill(kind, one.fid if one else bytes(16), **fields)
        recorded_at = self.changelogs[mdt].add(record, one.recorded_at if one else -1)
        if one is not None:
            one.recorded_at = recorded_at

    def _changed(self, one: Object, kind: Type, **fields: Any) -> None:
        self._record(one.mdt, kind, one, **fields)

    # -- names --------------------------------------------------------------------------------------------------

    def make(
        self, path: bytes, mode: int, *, uid: int = 0, gid: int = 0, rdev: int = 0, target: bytes = b"",
        mdt: int | None = None,
    ) -> Object:  # fmt: skip
        """A new object of the kind that ``mode`` says; of a directory, ``mdt`` is the server that was asked for."""
        parent, name = self._place(path)
        if name in parent.entries:
            raise fail(errno.EEXIST)
        kind, is_placed = Type.MKNOD, False
        if stat.S_ISDIR(mode):
            kind = Type.MKDIR
            is_placed = parent.is_placed or mdt is not None
            if mdt is None and not parent.is_placed:
                mdt = (parent.mdt + len(parent.entries)) % len(self.changelogs)  # item 13: it may land anywhere
        elif stat.S_ISREG(mode):
            kind = Type.CREAT
        elif stat.S_ISLNK(mode):
            kind = Type.SLINK
        mdt = parent.mdt if mdt is None else mdt
        number = self._new_fid(mdt)
        one = Object(fid=number, mdt=mdt, mode=mode, uid=uid, gid=gid, rdev=rdev, link_target=target)
        one.is_placed = is_placed
        one.kept = Kept(mode, parent.kept)
        self.objects[number] = one
        if stat.S_ISREG(mode):
            with open(self.content_path(number), "xb"):
                pass
        self._enter(parent, name, one)
        self._record(mdt, kind, one, parent=parent.fid, name=name)
        return one

    def _new_fid(self, mdt: int) -> ObjectId:
        self._numbers[mdt] += 1
        return fid.pack(_FIRST_SEQUENCE + mdt * _SEQUENCES_APART, self._numbers[mdt], 0)

    def _enter(self, parent: Object, name: bytes, one: Object) -> None:
        parent.entries[name] = one.fid
        one.links[parent.fid, name] = None
        parent.touch(content=True)
        one.touch(content=False)

    def _leave(self, parent: Object, name: bytes, one: Object) -> bool:
        """Take a name away; True when it was the last."""
        del parent.entries[name]
        del one.links[parent.fid, name]
        parent.touch(content=True)
        one.touch(content=False)
        if one.links:
            return False
        self._merge(one)
        del self.objects[one.fid]
        if stat.S_ISREG(one.mode):
            self.flush(one)
            os.unlink(self.content_path(one.fid))
        return True

    def link(self, old: bytes, new: bytes) -> None:
        """A further name."""
        one = self.find(old)
        parent, name = self._place(new)
        if name in parent.entries:
            raise fail(errno.EEXIST)
        if one.is_directory:
            raise fail(errno.EPERM)
        self._enter(parent, name, one)
        self._record(parent.mdt, Type.HLINK, one, parent=parent.fid, name=name)

    def unlink(self, path: bytes) -> None:
        """Take a name away."""
        parent, name = self._place(path)
        one = self.find(path)
        if one.is_directory:
            raise fail(errno.EISDIR)
        last = self._leave(parent, name, one)
        self._record(one.mdt, Type.UNLNK, one, parent=parent.fid, name=name, type_flags=int(last))

    def rm_entry(self, path: bytes) -> None:
        """``lfs rm_entry``: take away a name whose object cannot be reached any more; the record does not name that."""
        parent, name = self._place(path)
        one = self.find(path)
        self._leave(parent, name, one)
        self._record(parent.mdt, Type.UNLNK, None, parent=parent.fid, name=name)

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        parent, name = self._place(path)
        one = self.find(path)
        if not one.is_directory:
            raise fail(errno.ENOTDIR)
        if one.entries:
            raise fail(errno.ENOTEMPTY)
        self._leave(parent, name, one)
        self._record(one.mdt, Type.RMDIR, one, parent=parent.fid, name=name, type_flags=1)

    def rename(self, old: bytes, new: bytes) -> None:
        """Move a name, over what is at the new one."""
        old_parent, old_name = self._place(old)
        one = self.find(old)
        parent, name = self._place(new)
        victim = self.objects[parent.entries[name]] if name in parent.entries else None
        if victim is one:
            return  # two names of one object: nothing happens, and nothing is recorded
        above: Object = parent
        while one.is_directory and above.fid != fid.ROOT:
            if above is one:
                raise fail(errno.EINVAL)
            above = self.objects[next(iter(above.links))[0]]
        last = False
        if victim is not None:
            if victim.is_directory != one.is_directory:
                raise fail(errno.EISDIR if victim.is_directory else errno.ENOTDIR)
            if victim.entries:
                raise fail(errno.ENOTEMPTY)
            last = self._leave(parent, name, victim)
        del old_parent.entries[old_name]
        del one.links[old_parent.fid, old_name]
        old_parent.touch(content=True)
        self._enter(parent, name, one)
        self._record(
            victim.mdt if victim else parent.mdt, Type.RENME, victim, parent=parent.fid, name=name, source=one.fid,
            source_parent=old_parent.fid, source_name=old_name, type_flags=int(last), version=False,
        )  # fmt: skip

    def migrate(self, path: bytes, mdt: int, *, stale: bool = False) -> Object:
        """Move an object to another server: it gets a new FID, and one record (section 9, item 12).

        :param stale: the link EAs of what is in the directory go on naming its old FID.
        """
        parent, name = self._place(path)
        one = self.find(path)
        old = one.fid
        self._renumber(one, mdt)
        if stale:
            for child in one.entries.values():
                self.objects[child].stale_parents[one.fid] = old
        self._record(
            mdt, Type.MIGRT, one, parent=parent.fid, name=name, source=old, source_parent=parent.fid, source_name=name,
            version=False,
        )  # fmt: skip
        return one

    def migrate_entry(self, path: bytes, mdt: int, source: ObjectId) -> None:
        """An entry of a directory that is another object now: its last name there brings the object itself.

        :param source: the FID that the directory had; its entries come in the reverse order of their names.
        """
        parent, name = self._place(path)
        one = self.find(path)
        old, old_mdt = one.fid, one.mdt
        one.stale_parents.pop(parent.fid, None)
        later = [link for above, link in one.links if above == parent.fid and link < name]
        if not later and mdt != one.mdt:
            self._renumber(one, mdt)
        self._record(
            old_mdt, Type.MIGRT, one, parent=source, name=name, source=old, source_parent=parent.fid, source_name=name,
            version=False,
        )  # fmt: skip

    def migrated(self, path: bytes, servers: list[int]) -> None:
        """All entries of a directory were migrated: it is on these servers now."""
        one = self.find(path)
        self.stripe(one, servers, _FNV_1A_64)
        self._changed(one, Type.LYOUT)

    def stripe(self, one: Object, servers: list[int], kind: int) -> None:
        """Divide a directory among servers; ``kind`` is the number of a hash."""
        self._merge(one)
        for number, mdt in enumerate(servers):
            shard = Object(fid=self._new_fid(mdt), mdt=mdt, mode=one.mode)
            shard.links[one.fid, b"%s:%d" % (fid.text(shard.fid).encode(), number)] = None
            self.objects[shard.fid] = shard
            one.shards.append(shard.fid)
        one.kept.stripe(len(servers), one.mdt, kind, one.shards)

    def _merge(self, one: Object) -> None:
        """It has no shards any more."""
        for shard in one.shards:
            del self.objects[shard]
        one.shards.clear()

    def _renumber(self, one: Object, mdt: int) -> None:
        self._merge(one)
        old, new = one.fid, self._new_fid(mdt)
        if stat.S_ISREG(one.mode):
            self.flush(one)
            os.rename(self.content_path(old), self.content_path(new))
        one.fid, one.mdt = new, mdt
        del self.objects[old]
        self.objects[new] = one
        for above, link in one.links:
            self.objects[above].entries[link] = new
        for child in one.entries.values():
            names = self.objects[child].links
            self.objects[child].links = {(new if above == old else above, link): None for above, link in names}
        one.touch(content=False)

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
        one.kept.release()
        self._changed(one, Type.HSM, type_flags=3 << 7)

    def recall(self, one: Object) -> None:
        """``lfs hsm_restore``."""
        one.kept.recall()
        self._changed(one, Type.HSM, type_flags=1 << 7)

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

    def _servers_path(self, object_id: ObjectId) -> bytes:
        return self.content_path(object_id) + b".servers"

    def _sent_path(self, object_id: ObjectId) -> bytes:
        """Where the content is that the servers have."""
        return self._servers_path(object_id) if object_id in self._unsent else self.content_path(object_id)

    def flush(self, one: Object) -> None:
        """The client sends what was written: fsync(2), or somebody asks for the data version (section 9, item 6)."""
        if one.fid in self._unsent:
            self._unsent.remove(one.fid)
            os.unlink(self._servers_path(one.fid))

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
