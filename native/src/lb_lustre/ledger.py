"""What is known of each metadata server's changelog from one collection to the next: the detector's cursor."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from lb_lustre._records import Stream
from lb_lustre.errors import LustreError
from lbcore.model import ObjectId

_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One metadata server."""

    cleared: int
    """Records up to this index are durable as hints, and may be cleared."""
    seen: int = 0
    """Index of the last record that was read. It may not be committed on the server yet; 0 when there was none."""
    seen_time: int = 0
    """``cr_time`` of that record."""
    seen_fid: str = ""
    """Its target, as hexadecimal digits."""
    seen_at_ns: int = 0
    """When it was read first."""
    missed: int = 0
    """Up to this index holes were noticed, and led to a scan."""
    user: str = ""
    """Id of our user, as the server listed it; empty where the server is not asked."""

    def holes(self, stream: Stream) -> list[tuple[int, int]]:
        """Runs of indices that are missing and were not noticed before."""
        return [(first, last) for first, last in stream.holes if last > self.missed]

    def was(self, watched: tuple[int, ObjectId] | None) -> bool:
        """Whether the record at ``seen`` (its ``cr_time`` and target) is the one that was read then."""
        return watched is not None and (watched[0], watched[1].hex()) == (self.seen_time, self.seen_fid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """All metadata servers of one filesystem."""

    filesystem: str
    entries: dict[str, Entry]
    """By name, such as ``MDT0000``."""
    cut_ns: int = 0
    """Up to when the records told, by the servers' clock; 0 when there were none yet."""
    cut_at_ns: int = 0
    """When that was, by the clock here."""
    opened: dict[str, int] = field(default_factory=dict)
    """When each open file was seen to be open first (``openfiles.since``), where that is to be reported."""

    def cut(self, newest_ns: int, now_ns: int) -> int:
        """The servers' time now: that of the newest record, or what has passed since an earlier one."""
        passed = self.cut_ns + max(now_ns - self.cut_at_ns, 0) if self.cut_ns else 0
        return max(newest_ns, passed)

    def encode(self) -> bytes:
        """As a cursor."""
        entries = {mdt: dataclasses.asdict(entry) for mdt, entry in self.entries.items()}
        found = {"version": _VERSION, "filesystem": self.filesystem, "mdts": entries}
        clock = {"cut_ns": self.cut_ns, "cut_at_ns": self.cut_at_ns}
        return json.dumps({**found, **clock, "opened": self.opened}).encode()

    @classmethod
    def decode(cls, cursor: bytes | None, filesystem: str) -> Ledger:
        """From a cursor; an empty one when there was none.

        :raises LustreError: when it is that of another filesystem, or of a newer program.
        """
        if not cursor:
            return cls(filesystem=filesystem, entries={})
        found = json.loads(cursor)
        if found.get("version") != _VERSION:
            raise LustreError("the position in the changelogs was written by a newer lb-lustre; use that one")
        if found["filesystem"] != filesystem:
            raise LustreError(
                f"this job has read the changelogs of '{found['filesystem']}' so far, and its source is on "
                f"'{filesystem}' now: nothing was changed"
            )
        entries = {mdt: Entry(**entry) for mdt, entry in found["mdts"].items()}
        return cls(
            filesystem=filesystem, entries=entries, cut_ns=found["cut_ns"], cut_at_ns=found["cut_at_ns"],
            opened=found.get("opened", {}),
        )  # fmt: skip


def judge(mdt: str, before: Entry | None, stream: Stream) -> str | None:
    """Why the records of ``stream``, read from ``before.cleared`` on, are not all there were; None when they are."""
    if before is None:
        return f"{mdt} is read for the first time"
    if stream.went_back:
        return f"{mdt}: the indices of its changelog went back while it was read"
    for first, last in before.holes(stream):
        return f"{mdt}: the records {first} to {last} of its changelog are missing"
    return None


def judge_rest(mdt: str, before: Entry | None, stream: Stream) -> str | None:
    """Why what was left on the server cannot be all that was left there; not to be asked of a snapshot's changelog."""
    if before is not None and before.seen > before.cleared and not stream.records:
        return f"{mdt}: the records {before.cleared + 1} to {before.seen}, which were not cleared, are gone"
    return None


def advance(before: Entry | None, stream: Stream, now_ns: int, settled_ns: int) -> Entry:
    """The entry after a collection.

    What may be cleared is what was read by an earlier collection, at least ``settled_ns`` ago, and again now,
    unchanged: after a crash of the server, indices of records that were not committed are used again for others.
    """
    cleared = before.cleared if before is not None else max(stream.first - 1, 0)
    missed = max([before.missed if before is not None else 0, *(last for _, last in stream.holes)])
    if before is not None and before.seen > cleared and before.was(stream.watched):
        if now_ns - before.seen_at_ns < settled_ns:
            return dataclasses.replace(before, missed=missed)
        cleared = before.seen  # and what was read since is the next candidate
    fid = stream.last_fid
    if fid is None:
        return Entry(cleared=cleared, missed=missed)
    return Entry(
        cleared=cleared, seen=stream.last, seen_time=stream.last_time, seen_fid=fid.hex(), seen_at_ns=now_ns,
        missed=missed,
    )  # fmt: skip
