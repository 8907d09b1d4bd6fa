"""The detector ``changelog``: what changed, from the changelogs of all metadata servers; what is there now, by FID."""

from __future__ import annotations

import dataclasses
import errno
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, repeat

from lb_lustre import fid, openfiles
from lb_lustre._records import Reduction, Stream
from lb_lustre.checking import check_feed
from lb_lustre.errors import LustreError
from lb_lustre.feed import Feed
from lb_lustre.feeds import find_feeds
from lb_lustre.flushing import Flushing
from lb_lustre.ledger import Entry, Ledger, advance, judge, judge_rest
from lb_lustre.looking import Looking
from lb_lustre.mounts import find_device, find_mount
from lb_lustre.options import ChangelogOptions
from lb_lustre.pace import Limit, Pace, at_once
from lb_lustre.proof import Proof
from lb_lustre.registration import ensure, look
from lb_lustre.server import Server
from lb_lustre.servers import Servers
from lbcore.model import Hint, HintFlag, ObjectId, Seen, View
from lbcore.plugins.types import Collection, Finding, Known, Pacing, Source
from lbcore.scope import Scope

_SETTLED_NS = 30 * 10**9
"""Several commit intervals of a server (5 s each): what was read and is still the same after so long is committed."""
_LOOKED_AT_TOGETHER = 64
_AHEAD = 4


class Changelog:
    """Reads the feed, looks at what it names."""

    complete = False

    def __init__(self, options: ChangelogOptions) -> None:
        self._options = options
        limit = options.max_metadata_ops
        self._pace = None if limit is None else Pace(Limit(value=limit))

    # -- the feed -----------------------------------------------------------------------------------------------

    def collect(self, source: Source, cursor: bytes | None, view: View | None = None) -> Collection:
        """Read every changelog from what was cleared on; nothing is skipped because it was read before.

        A mounted snapshot has changelogs of its own, which end where it was made (section 9, item 3 of the reference).

        :raises LustreError: when a metadata server is gone, or its changelog cannot be read.
        """
        if view is not None and view.filesystem:
            return self._collect_in(view, self._ledger(source, cursor))
        return self._collect(source, cursor, mend=True)

    def peek(self, source: Source, cursor: bytes | None) -> Collection:
        """The same of the live filesystem, while nothing is cleared and nobody registered.

        Where the servers cannot be asked, that a registration is gone is not seen: only clearing tells.

        :raises LustreError: as ``collect``.
        """
        return self._collect(source, cursor, mend=False)

    def _ledger(self, source: Source, cursor: bytes | None) -> Ledger:
        return Ledger.decode(cursor, self._options.filesystem or find_device(source.path)[1])

    def _collect(self, source: Source, cursor: bytes | None, *, mend: bool) -> Collection:
        ledger = self._ledger(source, cursor)
        filesystem = ledger.filesystem
        feeds = self._feeds(source.path, filesystem, ledger)

        def registered(feed: Feed) -> tuple[Entry | None, str | None]:
            before = ledger.entries.get(feed.mdt)
            server = self._server(feed.mdt, filesystem)
            if server is None:
                return self._as_configured(feed.mdt, before)
            name, user = self._options.user_name(source.job), self._options.user_id(feed.mdt)
            return (ensure if mend else look)(server, name, user, before)

        with ThreadPoolExecutor(len(feeds), thread_name_prefix="lb-changelog") as pool:
            looked = dict(zip((feed.mdt for feed in feeds), pool.map(registered, feeds), strict=True))
            gaps = [gap for _, gap in looked.values()]
            if mend:
                gaps += [self._lost_user(feed, looked[feed.mdt][0]) for feed in feeds]
            reduction, streams = self._read(pool, feeds, {mdt: entry for mdt, (entry, _) in looked.items()})
            opened = sorted({one for found in pool.map(self._open_files, feeds, repeat(filesystem)) for one in found})
        now_ns = time.time_ns()
        entries = {}
        for feed, stream in zip(feeds, streams, strict=True):
            before, _ = looked[feed.mdt]
            known = before if feed.mdt in ledger.entries else None
            gaps += [judge(feed.mdt, known, stream), judge_rest(feed.mdt, known, stream)] if cursor else []
            after = advance(before, stream, now_ns, _SETTLED_NS)
            user = before.user if before is not None else self._options.user_id(feed.mdt) or ""
            entries[feed.mdt] = dataclasses.replace(after, user=user)
        cut_ns = ledger.cut(_newest(streams), now_ns)
        first_seen = openfiles.since(ledger.opened, opened, now_ns) if self._options.max_open else {}
        ahead = Ledger(
            filesystem=filesystem, entries=entries, cut_ns=cut_ns, cut_at_ns=now_ns, opened=first_seen
        )  # fmt: skip
        # What the servers list as open was asked for after the records: it is open, whoever else has closed it.
        still_open = (Hint(id=one, flags=HintFlag.OPEN | HintFlag.DATA, time_ns=cut_ns) for one in opened)
        return Collection(
            hints=chain(_hints(reduction), still_open),
            renumbered=reduction.renumbered(),
            cursor=ahead.encode(),
            gap=_joined(gaps),
            notes=tuple(openfiles.notes(opened, first_seen, self._options.max_open, now_ns)),
            cut_ns=cut_ns,
        )

    def _collect_in(self, view: View, ledger: Ledger) -> Collection:
        """The changelogs in a snapshot. They can neither be cleared nor tell anything of what comes later."""
        feeds = self._feeds(view.root, view.filesystem, ledger)
        with ThreadPoolExecutor(len(feeds), thread_name_prefix="lb-changelog") as pool:
            reduction, streams = self._read(pool, feeds, ledger.entries)
        gaps = [
            judge(feed.mdt, ledger.entries.get(feed.mdt), stream) for feed, stream in zip(feeds, streams, strict=True)
        ]
        return Collection(
            hints=_hints(reduction),
            renumbered=reduction.renumbered(),
            cursor=ledger.encode(),
            gap=_joined(gaps),
            cut_ns=_newest(streams),
        )

    def _feeds(self, path: bytes, filesystem: str, ledger: Ledger) -> Sequence[Feed]:
        feeds = find_feeds(filesystem, path, devices=self._options.devices, reader=self._options.reader)
        gone = sorted(ledger.entries.keys() - {feed.mdt for feed in feeds})
        if gone:
            raise LustreError(f"{', '.join(gone)} of '{filesystem}' is not connected on this node; nothing was changed")
        return feeds

    @staticmethod
    def _read(
        pool: ThreadPoolExecutor, feeds: Sequence[Feed], entries: Mapping[str, Entry | None]
    ) -> tuple[Reduction, list[Stream]]:
        reduction, lock = Reduction(), threading.Lock()

        def read(feed: Feed) -> Stream:
            return feed.read(entries.get(feed.mdt) or Entry(cleared=0), reduction, lock)

        return reduction, list(pool.map(read, feeds))

    def _as_configured(self, mdt: str, before: Entry | None) -> tuple[Entry | None, str | None]:
        """Of a server that is not asked: what is known of it, and why that does not hold any more."""
        user = self._options.user_id(mdt) or ""
        if before is None:
            return None, None
        changed = before.user and user and before.user != user
        gap = f"{mdt}: this job is registered as {user} now, and was as {before.user}" if changed else None
        return dataclasses.replace(before, user=user or before.user), gap

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
        filesystem = self._options.filesystem or find_device(source.path)[1]
        ledger = Ledger.decode(cursor, filesystem)
        for feed in self._feeds(source.path, filesystem, ledger):
            self._lost_user(feed, ledger.entries.get(feed.mdt))  # the next collection says what is wrong

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
        filesystem = self._options.filesystem or find_device(source.path)[1]
        for feed in self._feeds(source.path, filesystem, Ledger(filesystem=filesystem, entries={})):
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
            proof = Proof(mount, servers, known, lambda ids: list(pool.map(looking.look, ids)))
            while together := list(islice(waiting, _LOOKED_AT_TOGETHER * self._options.threads * _AHEAD)):
                yield from proof.look(list(dict.fromkeys(hint.id for hint in together)))

    def pace(self, view: View) -> Pacing | None:
        """Of the core, where it lists directories: each server is asked for no more than ``max_metadata_ops`` says.

        What is in a directory counts for the server of the directory.

        :raises LustreUnavailableError: when there is a limit, and no telling which server has which object.
        """
        return None if self._pace is None else self._pacing(Servers(find_mount(view.root)))

    def _pacing(self, servers: Servers) -> Pacing:
        """What is to be called before operations on an object.

        :raises LustreUnavailableError: when there is a limit, and no telling which server has which object.
        """
        pace = self._pace
        if pace is None:
            return at_once
        servers.of(fid.ROOT)
        return lambda object_id, operations: pace.wait(servers.of(object_id), operations)


def _newest(streams: Iterable[Stream]) -> int:
    """Time of the newest record, in nanoseconds since 1970; 0 when there is none."""
    return max(_nanoseconds(stream.last_time) for stream in streams)


def _nanoseconds(cr_time: int) -> int:
    """``cr_time`` as nanoseconds since 1970 (section 1 of the reference)."""
    return (cr_time >> 30) * 10**9 + (cr_time & 0x3FFFFFFF)


def _joined(gaps: Iterable[str | None]) -> str | None:
    return "; ".join(gap for gap in gaps if gap) or None


def _hints(reduction: Reduction) -> Iterator[Hint]:
    """What the records were reduced to, in the order of ids."""
    for object_id, flags, time_ns in reduction.hints():
        yield Hint(id=object_id, flags=HintFlag(flags), time_ns=time_ns)
