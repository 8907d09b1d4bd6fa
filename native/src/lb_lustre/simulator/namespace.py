"""The objects of a simulated Lustre and their names: finding, making, moving, migrating, and what that records."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from lb_lustre import fid
from lb_lustre.record import Type
from lb_lustre.simulator.changelog import Changelog
from lb_lustre.simulator.layout import Kept
from lb_lustre.simulator.objects import Object, fail
from lb_lustre.simulator.recording import Recorder
from lbcore.model import ObjectId

_FIRST_SEQUENCE = 0x200000400
_SEQUENCES_APART = 0x40000000
_FNV_1A_64 = 2
"""By which hash of their names entries of a migrated directory are divided."""


def _lost_and_found(mdt: int) -> Object:
    """What a server has once LFSCK was started on it."""
    number = fid.pack(_FIRST_SEQUENCE + mdt * _SEQUENCES_APART + 1, 1, 0)
    return Object(fid=number, mdt=mdt, mode=stat.S_IFDIR | 0o700)


class Namespace:
    """Objects and names on several servers. Paths are bytes, relative to the root. Not for two threads at once."""

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

    def link_count(self, one: Object) -> int:
        """``st_nlink``."""
        if one.is_directory:
            return 2 + one.subdirectories
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
        parent.subdirectories += one.is_directory
        one.links[parent.fid, name] = None
        parent.touch(content=True)
        one.touch(content=False)

    @staticmethod
    def _part(parent: Object, name: bytes, one: Object) -> None:
        del parent.entries[name]
        parent.subdirectories -= one.is_directory
        del one.links[parent.fid, name]
        parent.touch(content=True)

    def _leave(self, parent: Object, name: bytes, one: Object) -> bool:
        """Take a name away; True when it was the last."""
        self._part(parent, name, one)
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
        self._part(old_parent, old_name, one)
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
