"""The detector ``changelog``: what changed, from the changelogs of all metadata servers; what is there now, by FID."""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice, repeat
from typing import NamedTuple

from lb_lustre import extras, fid, link_ea, openfiles
from lb_lustre._records import Reduction, Stream
from lb_lustre.checking import check_feed
from lb_lustre.errors import LustreError
from lb_lustre.feed import Feed
from lb_lustre.feeds import find_feeds
from lb_lustre.flushing import Flushing
from lb_lustre.ledger import Entry, Ledger, advance, judge
from lb_lustre.mounts import find_filesystem, find_mount
from lb_lustre.options import ChangelogOptions
from lb_lustre.pace import Limit, Pace, Pacing, at_once
from lb_lustre.proof import Proof
from lb_lustre.registration import ensure
from lb_lustre.server import Server
from lb_lustre.servers import Servers
from lbcore import xattrs
from lbcore.model import Attributes, Hint, HintFlag, ObjectId, Observation, Seen, Unreadable, View
from lbcore.plugins.types import Collection, Finding, Known, Source
from lbcore.scope import Scope
from lbcore.source import look_at_root

_SETTLED_NS = 30 * 10**9
"""Several commit intervals of a server (5 s each): what was read and is still the same after so long is committed."""
_LOOKED_AT_TOGETHER = 64
_AHEAD = 4
_KEPT_DIRECTORIES = 100_000
_DEEPEST = 10_000


class Changelog:
    """Reads the feed, looks at what it names."""

    complete = False

    def __init__(self, options: ChangelogOptions) -> None:
        self._options = options
        limit = options.max_metadata_ops
        self._pace = None if limit is None else Pace(Limit(value=limit))

    # -- the feed -----------------------------------------------------------------------------------------------

    def collect(self, source: Source, cursor: bytes | None) -> Collection:
        """Read every changelog from what was cleared on; nothing is skipped because it was read before.

        :raises LustreError: when a metadata server is gone, or its changelog cannot be read.
        """
        filesystem = self._options.filesystem or find_filesystem(source.path)
        ledger = Ledger.decode(cursor, filesystem)
        feeds = self._feeds(source, filesystem)
        gone = sorted(ledger.entries.keys() - {feed.mdt for feed in feeds})
        if gone:
            raise LustreError(f"{', '.join(gone)} of '{filesystem}' is not connected on this node; nothing was changed")
        reduction, lock = Reduction(), threading.Lock()

        def look(feed: Feed) -> tuple[Entry | None, str | None]:
            before = ledger.entries.get(feed.mdt)
            server = self._server(feed.mdt, filesystem)
            if server is None:
                return before, None
            return ensure(server, self._options.user_name(source.job), self._options.user_id(feed.mdt), before)

        def read(feed: Feed) -> Stream:
            return feed.read(looked[feed.mdt][0] or Entry(cleared=0), reduction, lock)

        with ThreadPoolExecutor(len(feeds), thread_name_prefix="lb-changelog") as pool:
            looked = dict(zip((feed.mdt for feed in feeds), pool.map(look, feeds), strict=True))
            gaps = [gap for _, gap in looked.values()]
            gaps += [self._lost_user(feed, looked[feed.mdt][0]) for feed in feeds]
            streams = list(pool.map(read, feeds))
            opened = sorted({one for found in pool.map(self._open_files, feeds, repeat(filesystem)) for one in found})
        now_ns = time.time_ns()
        entries = {}
        for feed, stream in zip(feeds, streams, strict=True):
            before, _ = looked[feed.mdt]
            known = before if feed.mdt in ledger.entries else None
            gaps.append(judge(feed.mdt, known, stream) if cursor else None)
            after = advance(before, stream, now_ns, _SETTLED_NS)
            entries[feed.mdt] = dataclasses.replace(after, user=before.user if before is not None else "")
        cut_ns = ledger.cut(max(_nanoseconds(stream.last_time) for stream in streams), now_ns)
        first_seen = openfiles.since(ledger.opened, opened, now_ns) if self._options.max_open else {}
        ahead = Ledger(
            filesystem=filesystem, entries=entries, cut_ns=cut_ns, cut_at_ns=now_ns, opened=first_seen
        )  # fmt: skip
        why = "; ".join(gap for gap in gaps if gap)
        # What the servers list as open was asked for after the records: it is open, whoever else has closed it.
        still_open = (Hint(id=one, flags=HintFlag.OPEN | HintFlag.DATA, time_ns=cut_ns) for one in opened)
        return Collection(
            hints=chain(_hints(reduction), still_open),
            renumbered=reduction.renumbered(),
            cursor=ahead.encode(),
            gap=why or None,
            notes=tuple(openfiles.notes(opened, first_seen, self._options.max_open, now_ns)),
            cut_ns=cut_ns,
        )

    def _server(self, mdt: str, filesystem: str) -> Server | None:
        """Whom to ask about a changelog; None where nobody is configured."""
        lctl = self._options.lctl(mdt)
        return None if lctl is None else Server(lctl, filesystem, mdt)

    def _open_files(self, feed: Feed, filesystem: str) -> list[ObjectId]:
        """What clients have open on the server of a changelog, where it can be asked."""
        server = self._server(feed.mdt, filesystem)
        return [] if server is None else server.open_files()

    def acknowledge(self, source: Source, cursor: bytes) -> None:
        """Let the servers forget what is durable here and was seen to be committed there."""
        filesystem = self._options.filesystem or find_filesystem(source.path)
        ledger = Ledger.decode(cursor, filesystem)
        for feed in self._feeds(source, filesystem):
            self._lost_user(feed, ledger.entries.get(feed.mdt))  # the next collection says what is wrong

    def _feeds(self, source: Source, filesystem: str) -> Sequence[Feed]:
        return find_feeds(filesystem, source.path, devices=self._options.devices, reader=self._options.reader)

    def _lost_user(self, feed: Feed, entry: Entry | None) -> str | None:
        """Clear what may be cleared, which the server refuses when our registration is not what it was."""
        if entry is None or not entry.cleared:
            return None
        user = entry.user or self._options.user_id(feed.mdt)
        if user is None:
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

    def flush(self, source: Source, hints: Iterable[Hint]) -> dict[str, int]:
        """Make whoever wrote to the hinted files send what is cached, so that a snapshot taken next holds it.

        :param hints: of what was written to recently; what they say nothing of data of is left alone.
        :returns: how many files were ``flushed``, were ``gone``, ``failed``, or were ``left`` as the time was up.
        """
        written = (hint.id for hint in hints if hint.flags & (HintFlag.DATA | HintFlag.OPEN))
        mount = find_mount(source.path)
        flushing = Flushing(mount, self._pacing(Servers(mount)))
        return flushing.flush(written, threads=self._options.threads, seconds=self._options.flush_seconds)

    def check(self, source: Source) -> Iterator[Finding]:
        """What is wrong with the devices of this node, and with the job's registrations.

        :raises LustreError: when the filesystem is not mounted here.
        """
        filesystem = self._options.filesystem or find_filesystem(source.path)
        for feed in self._feeds(source, filesystem):
            yield from check_feed(feed, self._options, filesystem, source.job, time.time_ns())

    # -- the view -----------------------------------------------------------------------------------------------

    def observe(self, view: View, scope: Scope, known: Known, hints: Iterable[Hint]) -> Iterator[Seen]:
        """Look at each object by its FID; nothing is opened.

        :raises LustreError: when it cannot be proved that a server, whose objects seem to be gone, answers.
        """
        mount = find_mount(view.root)
        servers = Servers(mount)
        looking = Looking(view, scope, self._pacing(servers))
        waiting = iter(hints)
        with ThreadPoolExecutor(self._options.threads, thread_name_prefix="lb-look") as pool:
            look = partial(pool.map, looking.look, chunksize=_LOOKED_AT_TOGETHER)
            proof = Proof(mount, servers, known, lambda ids: list(look(ids)))
            while together := list(islice(waiting, _LOOKED_AT_TOGETHER * self._options.threads * _AHEAD)):
                yield from proof.look(list(dict.fromkeys(hint.id for hint in together)))

    def _pacing(self, servers: Servers) -> Pacing:
        """What is to be called before operations on an object.

        :raises LustreUnavailableError: when there is a limit, and no telling which server has which object.
        """
        pace = self._pace
        if pace is None:
            return at_once
        servers.of(fid.ROOT)
        return lambda object_id, operations: pace.wait(servers.of(object_id), operations)


class _Place(NamedTuple):
    """Where a directory is."""

    fid: ObjectId
    """Of the directory; of a striped one, when a shard was asked for."""
    inside: bool
    """Whether it lies in the source, and is covered."""
    path: bytes
    """Relative to the source."""


class Looking:
    """Looks at objects of one view, by FID. For several threads at once."""

    def __init__(self, view: View, scope: Scope, pacing: Pacing = at_once) -> None:
        self._scope = scope
        self._pacing = pacing
        self._by_fid = find_mount(view.root) + b"/.lustre/fid/"
        self._root, _ = look_at_root(view.root)
        self._places: OrderedDict[ObjectId, _Place] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, object_id: ObjectId) -> Seen:
        """One object: gone, outside of the source, or with all its names in it."""
        path = self._path(object_id)
        try:
            self._pacing(object_id, 1)
            there = os.lstat(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return Observation(id=object_id, attributes=None)
            return self._unreadable(object_id, error)
        except LustreError as error:
            return self._unreadable(object_id, error)
        if object_id == fid.ROOT:
            return Observation(id=object_id, attributes=None)  # it has no name, and the core looks at it itself
        try:
            return self._observe(object_id, path, there)
        except (OSError, LustreError) as error:
            return self._unreadable(object_id, error)  # what fails from here on is no sign that it is gone

    def _observe(self, object_id: ObjectId, path: bytes, there: os.stat_result) -> Seen:
        links = self._links(object_id)
        names = []
        for parent, name in links:
            place = self._place(parent)
            if place.inside and not self._excludes(place, name, stat.S_ISDIR(there.st_mode)):
                names.append((place.fid, name))
        untold = 0 if stat.S_ISDIR(there.st_mode) else max(0, there.st_nlink - len(links))
        inside = bool(names or untold)
        return Observation(
            id=object_id,
            attributes=_attributes(there),
            names=tuple(names),
            untold=untold,
            extras=xattrs.read(path) | extras.read(path, there.st_mode) if inside else {},
            link_target=os.readlink(path) if inside and stat.S_ISLNK(there.st_mode) else None,
        )

    def _path(self, object_id: ObjectId) -> bytes:
        return self._by_fid + fid.text(object_id).encode()

    def _links(self, object_id: ObjectId) -> list[tuple[ObjectId, bytes]]:
        self._pacing(object_id, 1)
        return link_ea.parse(os.getxattr(self._path(object_id), link_ea.XATTR, follow_symlinks=False)).names

    @staticmethod
    def _unreadable(object_id: ObjectId, error: OSError | LustreError) -> Unreadable:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Unreadable(path=fid.text(object_id).encode(), reason=reason, object=object_id)

    # -- what lies in the source --------------------------------------------------------------------------------

    def _excludes(self, place: _Place, name: bytes, is_directory: bool) -> bool:
        return not self._scope.all and self._scope.excludes(_join(place.path, name), is_directory)

    def _place(self, object_id: ObjectId) -> _Place:
        """Where a directory is: found by going up, name by name, to one that is known."""
        climbed: list[tuple[ObjectId, bytes]] = []
        at = object_id
        while (place := self._known(at)) is None:
            if len(climbed) > _DEEPEST:
                raise LustreError(f"the directories above {fid.text(object_id)} make a circle")
            parent, name = self._links(at)[0]
            climbed.append((at, name))
            at = parent
        for directory, name in reversed(climbed):
            # A shard is called FID:NUMBER in the striped directory, and its entries are that one's.
            if not name.startswith(fid.text(directory).encode() + b":"):
                inside = place.inside and not self._excludes(place, name, True)
                place = _Place(directory, inside, _join(place.path, name))
            with self._lock:
                self._places[directory] = place
                if len(self._places) > _KEPT_DIRECTORIES:
                    self._places.popitem(last=False)
        return place

    def _known(self, object_id: ObjectId) -> _Place | None:
        if object_id == self._root:
            return _Place(object_id, True, b"")
        if object_id == fid.ROOT:
            return _Place(object_id, False, b"")
        with self._lock:
            return self._places.get(object_id)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _nanoseconds(cr_time: int) -> int:
    """``cr_time`` as nanoseconds since 1970 (section 1 of the reference)."""
    return (cr_time >> 30) * 10**9 + (cr_time & 0x3FFFFFFF)


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
