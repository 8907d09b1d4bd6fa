"""What may be cleared, and when a feed is no longer to be trusted."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lb_lustre import fid
from lb_lustre._records import Reduction, Stream
from lb_lustre.device import DeviceFeed, find_devices
from lb_lustre.errors import LustreError
from lb_lustre.ledger import Entry, Ledger, advance, judge
from lb_lustre.record import Record, Type

A = fid.pack(0x200000401, 1, 0)
SETTLED = 30
NEVER = Entry(cleared=0)


def read(indices: range | list[int], *, start: int = 1, watch: int = 0, second: int = 1) -> Stream:
    """A stream of records with these indices; ``second`` is when they were written."""
    stream = Stream(expected=start, watch=watch)
    records = [Record(type=Type.SATTR, index=index, time_ns=second * 10**9 + index, target=A) for index in indices]
    Reduction().feed(b"".join(record.encode() for record in records), stream)
    return stream


def test_what_is_read_once_is_not_cleared_and_what_is_read_again_later_is() -> None:
    first = advance(NEVER, read(range(1, 6)), 100, SETTLED)
    assert (first.cleared, first.seen, first.seen_at_ns) == (0, 5, 100)
    soon = advance(first, read(range(1, 9), watch=5), 110, SETTLED)
    assert soon == first, "it has to settle, and the first candidate stays"
    later = advance(soon, read(range(1, 12), watch=5), 140, SETTLED)
    assert (later.cleared, later.seen, later.seen_at_ns) == (5, 11, 140)
    assert advance(later, read(range(6, 12), start=6, watch=11), 180, SETTLED).cleared == 11


def test_what_is_not_the_same_again_is_never_cleared() -> None:
    first = advance(NEVER, read(range(1, 6)), 100, SETTLED)
    crashed = advance(first, read(range(1, 6), watch=5, second=2), 200, SETTLED)
    assert (crashed.cleared, crashed.seen_at_ns) == (0, 200)
    shorter = advance(first, read(range(1, 4), watch=5), 200, SETTLED)
    assert (shorter.cleared, shorter.seen) == (0, 3)


def test_a_hole_is_told_once() -> None:
    stream = read([5, 9, 10], start=5)
    before = Entry(cleared=4)
    assert judge("MDT0000", before, stream) is not None
    after = advance(before, stream, 100, SETTLED)
    assert after.missed == 8
    assert judge("MDT0000", after, read([5, 9, 10, 11], start=5)) is None
    assert judge("MDT0000", after, read([5, 9, 10, 13], start=5)) is not None


def test_nothing_new_changes_nothing() -> None:
    entry = Entry(cleared=9)
    assert advance(entry, read([], start=10), 100, SETTLED) == entry


@pytest.mark.parametrize(
    ("before", "stream", "why"),
    [
        (NEVER, read(range(1, 5)), None),
        (Entry(cleared=4), read([], start=5), None),
        (Entry(cleared=4), read([5, 6], start=5), None),
        (None, read(range(1, 5)), "MDT0000 is read for the first time"),
        (Entry(cleared=4), read([7, 8], start=5), "MDT0000: the records 5 to 6 of its changelog are missing"),
        (Entry(cleared=4), read([5, 9], start=5), "MDT0000: the records 6 to 8 of its changelog are missing"),
        (Entry(cleared=4), read([5, 6, 2], start=5), "MDT0000: the indices of its changelog went back"),
    ],
)
def test_a_feed_that_cannot_be_trusted_says_why(before: Entry | None, stream: Stream, why: str | None) -> None:
    said = judge("MDT0000", before, stream)
    assert said is None if why is None else (said or "").startswith(why)


def test_a_ledger_is_what_it_was_and_is_refused_elsewhere() -> None:
    entries = {"MDT0000": Entry(cleared=5, seen=9, seen_time=7, seen_fid="00ff")}
    ledger = Ledger(filesystem="scratch", entries=entries, cut_ns=11, cut_at_ns=12)
    cursor = ledger.encode()
    assert Ledger.decode(cursor, "scratch") == ledger
    assert Ledger.decode(None, "scratch") == Ledger.decode(b"", "scratch") == Ledger(filesystem="scratch", entries={})
    with pytest.raises(LustreError, match="the changelogs of 'scratch' so far"):
        Ledger.decode(cursor, "other")
    with pytest.raises(LustreError, match="newer lb-lustre"):
        Ledger.decode(cursor.replace(b'"version": 1', b'"version": 2'), "scratch")


def test_the_servers_time_goes_on_when_nothing_is_recorded() -> None:
    ledger = Ledger(filesystem="scratch", entries={}, cut_ns=1000, cut_at_ns=5000)
    assert ledger.cut(0, 5300) == 1300
    assert ledger.cut(2000, 5300) == 2000
    assert ledger.cut(0, 4000) == 1000, "a clock here that was set back"
    assert Ledger(filesystem="scratch", entries={}).cut(0, 5000) == 0


def test_feeds_are_found_by_their_devices(tmp_path: Path) -> None:
    for name in ("changelog-scratch-MDT0001", "changelog-scratch-MDT0000", "changelog-scratch2-MDT0000", "null"):
        (tmp_path / name).touch()
    assert [feed.mdt for feed in find_devices(str(tmp_path), "scratch")] == ["MDT0000", "MDT0001"]
    with pytest.raises(LustreError, match="is the filesystem 'other' mounted"):
        find_devices(str(tmp_path), "other")
    with pytest.raises(LustreError, match="cannot be listed"):
        find_devices(str(tmp_path / "missing"), "scratch")


def test_a_device_that_fails_says_which_and_what_to_do(tmp_path: Path) -> None:
    feed = DeviceFeed(str(tmp_path / "changelog-x-MDT0003"), "MDT0003")
    with pytest.raises(LustreError, match=r"MDT0003 .* cannot be opened: No such file .* mounted on this node"):
        feed.read(NEVER, Reduction(), threading.Lock())
    os.mkdir(feed.device)
    with pytest.raises(LustreError, match=r"could not be read on after index 0: Is a directory"):
        feed.read(NEVER, Reduction(), threading.Lock())
    with pytest.raises(ValueError, match="would clear everything"):
        feed.clear("cl1", 0)
