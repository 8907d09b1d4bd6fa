"""The detector ``changelog``: what changed, from the changelogs of all metadata servers; what is there now, by FID."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from lb_lustre import fid, link_ea
from lb_lustre._records import Reduction, Stream
from lb_lustre.errors import LustreError
from lb_lustre.feed import Feed, find_feeds
from lb_lustre.ledger import Entry, Ledger, advance, judge
from lbcore import xattrs
from lbcore.model import Attributes, Hint, HintFlag, ObjectId, Observation, Seen, Unreadable, View
from lbcore.plugins.types import Collection, Known, Source
from lbcore.scope import Scope

_SETTLED_NS = 30 * 10**9
"""Several commit intervals of a server (5 s each): what was read and is still the same after so long is committed."""
_LOOKED_AT_TOGETHER = 64
_AHEAD = 4
_KEPT_DIRECTORIES = 100_000
_DEEPEST = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangelogOptions:
    """``[job.NAME.changelog]``."""

    filesystem: str = ""
    """Name of the filesystem, such as ``scratch``; found from the source's mount when empty."""
    users: tuple[str, ...] = field(default=())
    """The registered users as ``MDT0000=cl1-lb-home``; without them nothing is cleared."""
    devices: str = "/dev"
    """The folder of the character devices ``changelog-*``."""
    threads: int = 16
    """How many objects are looked at at the same time."""


class Changelog:
    """Reads the feed, looks at what it names."""

    complete = False

    def __init__(self, options: ChangelogOptions) -> None:
        self._options = options
        self._users = dict(user.split("=", 1) for user in options.users)

    # -- the feed -----------------------------------------------------------------------------------------------

    def collect(self, source: Source, cursor: bytes | None) -> Collection:
        """Read every changelog from what was cleared on; nothing is skipped because it was read before.

        :raises LustreError: when a metadata server is gone, or its changelog cannot be read.
        """
        filesystem = self._options.filesystem or find_filesystem(source.path)
        ledger = Ledger.decode(cursor, filesystem)
        feeds = find_feeds(self._options.devices, filesystem)
        gone = sorted(ledger.entries.keys() - {feed.mdt for feed in feeds})
        if gone:
            raise LustreError(f"{', '.join(gone)} of '{filesystem}' is not connected on this node; nothing was changed")
        reduction, lock = Reduction(), threading.Lock()

        def read(feed: Feed) -> Stream:
            return feed.read(ledger.entries.get(feed.mdt, Entry(cleared=0)), reduction, lock)

        gaps = [self._lost_user(feed, ledger.entries.get(feed.mdt)) for feed in feeds]
        with ThreadPoolExecutor(len(feeds), thread_name_prefix="lb-changelog") as pool:
            streams = list(pool.map(read, feeds))
        now_ns = time.time_ns()
        entries = {}
        for feed, stream in zip(feeds, streams, strict=True):
            before = ledger.entries.get(feed.mdt)
            gaps.append(judge(feed.mdt, before, stream) if cursor else None)
            entries[feed.mdt] = advance(before, stream, now_ns, _SETTLED_NS)
        why = "; ".join(gap for gap in gaps if gap)
        return Collection(
            hints=_hints(reduction),
            cursor=Ledger(filesystem=filesystem, entries=entries).encode(),
            gap=why or None,
        )

    def acknowledge(self, source: Source, cursor: bytes) -> None:
        """Let the servers forget what is durable here and was seen to be committed there."""
        filesystem = self._options.filesystem or find_filesystem(source.path)
        ledger = Ledger.decode(cursor, filesystem)
        for feed in find_feeds(self._options.devices, filesystem):
            self._lost_user(feed, ledger.entries.get(feed.mdt))  # the next collection says what is wrong

    def _lost_user(self, feed: Feed, entry: Entry | None) -> str | None:
        """Clear what may be cleared, which the server refuses when our registration is not what it was."""
        user = self._users.get(feed.mdt)
        if entry is None or not entry.cleared or user is None:
            return None
        try:
            feed.clear(user, entry.cleared)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return f"{feed.mdt}: the changelog user {user} is not registered any more"
            if error.errno == errno.EINVAL:
                return f"{feed.mdt}: its changelog begins anew, or somebody else cleared it for {user}"
            raise LustreError(f"{feed.mdt}: its changelog could not be cleared: {error.strerror}") from error
        return None

    # -- the view -----------------------------------------------------------------------------------------------

    def observe(self, view: View, scope: Scope, known: Known, hints: Iterable[Hint]) -> Iterator[Seen]:
        """Look at each object by its FID; nothing is opened."""
        looking = _Looking(view, scope)
        waiting = iter(hints)
        with ThreadPoolExecutor(self._options.threads, thread_name_prefix="lb-look") as pool:
            while together := list(islice(waiting, _LOOKED_AT_TOGETHER * self._options.threads * _AHEAD)):
                ids = list(dict.fromkeys(hint.id for hint in together))
                yield from pool.map(looking.look, ids, chunksize=_LOOKED_AT_TOGETHER)


class _Looking:
    """Looks at objects of one view."""

    def __init__(self, view: View, scope: Scope) -> None:
        self._scope = scope
        self._by_fid = find_mount(view.root) + b"/.lustre/fid/"
        self._root = self._fid_of(view.root)
        self._inside: OrderedDict[ObjectId, tuple[bool, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def _fid_of(path: bytes) -> ObjectId:
        from lbcore.source import look_at_root  # noqa: PLC0415

        return look_at_root(path)[0]

    def look(self, object_id: ObjectId) -> Seen:
        """One object: gone, outside of the source, or with all its names in it."""
        path = self._by_fid + fid.text(object_id).encode()
        try:
            there = os.lstat(path)
            data = os.getxattr(path, link_ea.XATTR, follow_symlinks=False)
            links = link_ea.parse(data)
            names = tuple(name for name in links.names if self._covers(*name, stat.S_ISDIR(there.st_mode)))
            extras = xattrs.read(path) if names else {}
            target = os.readlink(path) if stat.S_ISLNK(there.st_mode) and names else None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return Observation(id=object_id, attributes=None)
            if error.errno == errno.ENODATA and object_id == fid.ROOT:
                return Observation(id=object_id, attributes=None)  # the top has no name; the core looks at it itself
            return Unreadable(path=fid.text(object_id).encode(), reason=error.strerror or str(error))
        except LustreError as error:
            return Unreadable(path=fid.text(object_id).encode(), reason=str(error))
        if not stat.S_ISDIR(there.st_mode) and there.st_nlink > len(links.names):
            reason = f"has {there.st_nlink} names, of which its link EA holds {len(links.names)}"
            return Unreadable(path=links.names[0][1] if links.names else b"", reason=reason)
        return Observation(id=object_id, attributes=_attributes(there), names=names, extras=extras, link_target=target)

    # -- what lies in the source --------------------------------------------------------------------------------

    def _covers(self, parent: ObjectId, name: bytes, is_directory: bool) -> bool:
        """Whether a name lies below the view's root and is not excluded."""
        inside, path = self._directory(parent)
        if not inside:
            return False
        return self._scope.all or not self._scope.excludes(path + b"/" + name if path else name, is_directory)

    def _directory(self, object_id: ObjectId) -> tuple[bool, bytes]:
        """Whether a directory lies in the source, and is covered; and its path there."""
        climbed: list[tuple[ObjectId, bytes]] = []
        at = object_id
        found: tuple[bool, bytes] | None = None
        while found is None:
            with self._lock:
                found = (True, b"") if at == self._root else self._inside.get(at)
            if found is not None:
                break
            if at == fid.ROOT or len(climbed) > _DEEPEST:
                found = (False, b"")
                break
            data = os.getxattr(self._by_fid + fid.text(at).encode(), link_ea.XATTR, follow_symlinks=False)
            parent, name = link_ea.parse(data).names[0]
            climbed.append((at, name))
            at = parent
        for directory, name in reversed(climbed):
            inside, path = found
            below = path + b"/" + name if path else name
            found = (inside and not (not self._scope.all and self._scope.excludes(below, True)), below)
            with self._lock:
                self._inside[directory] = found
                if len(self._inside) > _KEPT_DIRECTORIES:
                    self._inside.popitem(last=False)
        return found


def _attributes(there: os.stat_result) -> Attributes:
    special = stat.S_ISCHR(there.st_mode) or stat.S_ISBLK(there.st_mode)
    return Attributes(
        mode=there.st_mode, uid=there.st_uid, gid=there.st_gid, nlink=there.st_nlink, size=there.st_size,
        mtime_ns=there.st_mtime_ns, ctime_ns=there.st_ctime_ns, rdev=there.st_rdev if special else 0,
    )  # fmt: skip


def _hints(reduction: Reduction) -> Iterator[Hint]:
    """What the records were reduced to, in the order of ids."""
    for object_id, flags, time_ns in reduction.hints():
        yield Hint(id=object_id, flags=HintFlag(flags), time_ns=time_ns)


def find_mount(path: bytes) -> bytes:
    """The top of the Lustre filesystem that a path is on: where ``.lustre`` is.

    :raises LustreError: when it is on none.
    """
    return _upwards(path, lambda at: os.path.isdir(at + b"/.lustre/fid"))


def _upwards(path: bytes, fulfils: Callable[[bytes], bool]) -> bytes:
    at = os.path.realpath(path)
    while not fulfils(at):
        above = os.path.dirname(at)
        if above == at:
            raise LustreError(f"{os.fsdecode(path)} is on no Lustre filesystem")
        at = above
    return at


def find_filesystem(path: bytes) -> str:
    """The name of the Lustre filesystem that is mounted where a path lies: ``MGS:/NAME`` in /proc/self/mounts.

    :raises LustreError: when none is.
    """
    mount = find_mount(path)
    with open("/proc/self/mounts", "rb") as mounts:
        for line in mounts:
            device, at, kind = line.split()[:3]
            if kind == b"lustre" and at.replace(b"\\040", b" ") == mount:
                return os.fsdecode(device.rpartition(b":/")[2].partition(b"/")[0])
    raise LustreError(
        f"{os.fsdecode(mount)} is not mounted as Lustre on this node; name the filesystem in 'changelog.filesystem'"
    )
