"""Changelog records: parsed as ``lfs changelog`` prints them, and reduced to FIDs with flags."""

from __future__ import annotations

import mmap
import random
import subprocess
import sys
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb_lustre import _records, fid
from lb_lustre._records import Reduction, Stream
from lb_lustre.errors import MalformedError
from lb_lustre.record import Record, Type, decode
from tests.lb_lustre.recordings import dumps, needs_recordings, reads, text

F = _records
SECOND = 10**9

# ── As a real Lustre wrote and printed them ───────────────────────────────────────────────────────────────────────────


@needs_recordings
@pytest.mark.parametrize("name", [name for name in dumps("*.mdt?.*bin") if "inside" not in name])
def test_raw_dumps_parse_to_what_the_text_dumps_say(name: str) -> None:
    lines = [record.text() + b"\n" for record in decode(b"".join(reads(name)))]
    assert b"".join(lines) == text(name)


@needs_recordings
@pytest.mark.parametrize("name", dumps("*bin"))
def test_recorded_records_are_reduced_to_what_each_of_them_says(name: str) -> None:
    reduction, stream = Reduction(), Stream()
    expected: list[Record] = []
    for piece in reads(name):
        expected += decode(piece)
        reduction.feed(piece, stream)
    assert hints_of(reduction) == plainly_reduced(expected)
    assert list(reduction.renumbered()) == [
        (one.source, one.target) for one in expected if one.type == Type.MIGRT and one.source != one.target
    ]
    assert (stream.records, stream.holes, stream.unknown, stream.went_back) == (len(expected), [], 0, False)
    if expected:
        assert (stream.first, stream.last) == (expected[0].index, expected[-1].index)
        assert stream.last_fid == expected[-1].target


@needs_recordings
def test_the_device_and_the_library_give_the_same_records() -> None:
    for name in dumps("*.kbin"):
        from_device = list(decode(b"".join(reads(name))))
        from_library = list(decode(b"".join(reads(name.replace(".kbin", ".bin")))))
        # the library says of a rename that it has the newest form (section 9, item 18)
        assert [one.text() for one in from_device] == [one.text() for one in from_library], name


# ── One kind after the other ──────────────────────────────────────────────────────────────────────────────────────────

A, B, C, D = (fid.pack(0x200000401, number, 0) for number in range(1, 5))


def record(kind: int, index: int = 1, time_ns: int = SECOND, **fields: object) -> Record:
    return Record(type=kind, index=index, time_ns=time_ns, **fields)  # type: ignore[arg-type]


def reduced(*records: Record) -> dict[bytes, tuple[int, int]]:
    reduction = Reduction()
    reduction.feed(b"".join(one.encode() for one in records), Stream())
    return hints_of(reduction)


def hints_of(reduction: Reduction) -> dict[bytes, tuple[int, int]]:
    rows = list(reduction.hints())
    assert rows == sorted(rows)
    assert len(rows) == len(reduction)
    return {object_id: (flags, time_ns) for object_id, flags, time_ns in rows}


def flags_of(*records: Record) -> dict[bytes, int]:
    return {object_id: flags for object_id, (flags, _) in reduced(*records).items()}


def plainly_reduced(records: Iterable[Record]) -> dict[bytes, tuple[int, int]]:
    """What the loop does, a record at a time, without a table."""
    touched: dict[bytes, int] = {}
    times: dict[bytes, int] = {}
    made, removed = set(), set()
    namespace = {Type.CREAT, Type.MKDIR, Type.HLINK, Type.SLINK, Type.MKNOD, Type.UNLNK, Type.RMDIR, Type.RENME,
                 Type.RNMTO, Type.MIGRT}  # fmt: skip
    data = {Type.CREAT, Type.MKNOD, Type.CLOSE, Type.LYOUT, Type.TRUNC, Type.MTIME, Type.FLRW, Type.RESYNC}
    silent = {Type.MARK, Type.ATIME, Type.GXATR, Type.NOPEN}
    for one in records:
        if one.type in silent:
            continue
        flags = F.ATTRIBUTES
        if one.type in namespace:
            flags |= F.NAMES
        if one.type in data:
            flags |= F.DATA
        opened = one.type == Type.OPEN and ((one.open_flags or 0) | one.type_flags) & 2
        if one.type == Type.OPEN:
            flags = F.DATA | F.OPEN if opened else 0
        if one.type == Type.CLOSE and one.type_flags & 0x603 == 1:
            continue  # of a reader
        named = {one.target: flags} if flags else {}
        if one.type in namespace:
            # a removal that does not say of what: the directory has to be listed
            unnamed = one.type in (Type.UNLNK, Type.RMDIR) and one.target == bytes(16)
            named[one.parent] = named.get(one.parent, 0) | F.ATTRIBUTES | (F.LIST if unnamed else 0)
            if one.source is not None:
                named[one.source] = named.get(one.source, 0) | F.NAMES | F.ATTRIBUTES
                named[one.source_parent] = named.get(one.source_parent, 0) | F.ATTRIBUTES
        named.pop(bytes(16), None)
        for object_id, what in named.items():
            touched[object_id] = touched.get(object_id, 0) | what
        if one.target in named:
            if one.type == Type.CLOSE:
                touched[one.target] = (touched[one.target] | F.CLOSED) & ~F.OPEN
            elif (one.type == Type.CREAT or opened) and one.time_ns >= times.get(one.target, 0):
                touched[one.target] = (touched[one.target] | F.OPEN) & ~F.CLOSED
            if one.type in (Type.CREAT, Type.MKDIR, Type.SLINK, Type.MKNOD):
                made.add(one.target)
            if one.type in (Type.UNLNK, Type.RMDIR, Type.RENME) and one.type_flags & 1:
                removed.add(one.target)
            if flags & F.DATA:
                times[one.target] = max(times.get(one.target, 0), one.time_ns)
    for object_id in removed:
        touched[object_id] &= ~F.OPEN
        touched[object_id] |= F.PASSING if object_id in made else 0
    return {object_id: (flags, times.get(object_id, 0)) for object_id, flags in touched.items()}


NEW = F.NAMES | F.ATTRIBUTES


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (record(Type.CREAT, target=A, parent=B, name=b"n"), {A: NEW | F.DATA | F.OPEN, B: F.ATTRIBUTES}),
        (record(Type.MKDIR, target=A, parent=B, name=b"n"), {A: NEW, B: F.ATTRIBUTES}),
        (record(Type.HLINK, target=A, parent=B, name=b"n"), {A: NEW, B: F.ATTRIBUTES}),
        (record(Type.UNLNK, target=A, parent=B, name=b"n"), {A: NEW, B: F.ATTRIBUTES}),
        (record(Type.UNLNK, parent=B, name=b"n"), {B: F.ATTRIBUTES | F.LIST}),
        (
            record(Type.RENME, target=A, parent=B, name=b"n", source=C, source_parent=D, source_name=b"o"),
            {A: NEW, B: F.ATTRIBUTES, C: NEW, D: F.ATTRIBUTES},
        ),
        (record(Type.RENME, parent=B, name=b"n", source=C, source_parent=B, source_name=b"o"),
         {B: F.ATTRIBUTES, C: NEW}),
        (record(Type.CLOSE, target=A, parent=B), {A: F.DATA | F.ATTRIBUTES | F.CLOSED}),
        (record(Type.CLOSE, target=A, type_flags=1), {}),
        (record(Type.CLOSE, target=A, type_flags=0x201), {A: F.DATA | F.ATTRIBUTES | F.CLOSED}),
        (record(Type.CLOSE, target=A, type_flags=0x42), {A: F.DATA | F.ATTRIBUTES | F.CLOSED}),
        (record(Type.OPEN, target=A, parent=B, type_flags=1), {}),
        (record(Type.OPEN, target=A, parent=B, type_flags=2), {A: F.DATA | F.OPEN}),
        (record(Type.OPEN, target=A, open_flags=2), {A: F.DATA | F.OPEN}),
        (record(Type.TRUNC, target=A, parent=B), {A: F.DATA | F.ATTRIBUTES}),
        (record(Type.MTIME, target=A, parent=B), {A: F.DATA | F.ATTRIBUTES}),
        (record(Type.XATTR, target=A, parent=B, xattr=b"user.x"), {A: F.ATTRIBUTES}),
        (record(Type.SATTR, target=A), {A: F.ATTRIBUTES}),
        (record(Type.CTIME, target=A), {A: F.ATTRIBUTES}),
        (record(Type.MARK, target=A), {}),
        (record(Type.ATIME, target=A), {}),
        (record(Type.GXATR, target=A), {}),
        (record(Type.NOPEN, target=A), {}),
        (record(77, target=A, parent=B), {A: NEW | F.DATA}),
        (record(77, target=A, parent=B, name=b"n", source=C, source_parent=D),
         {A: NEW | F.DATA, B: F.ATTRIBUTES, C: NEW | F.DATA, D: F.ATTRIBUTES}),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value.type),
)  # fmt: skip
def test_what_a_record_says_of_its_fids(one: Record, expected: dict[bytes, int]) -> None:
    assert flags_of(one) == expected


def test_what_was_made_and_removed_passes_by() -> None:
    made = record(Type.CREAT, 1, target=A, parent=B, name=b"n")
    last = record(Type.UNLNK, 2, target=A, parent=B, name=b"n", type_flags=1)
    assert flags_of(made, last)[A] & F.PASSING
    assert flags_of(last, made)[A] & F.PASSING
    assert not flags_of(made, record(Type.UNLNK, 2, target=A, parent=B, name=b"n"))[A] & F.PASSING
    assert not flags_of(last)[A] & F.PASSING


def test_a_file_is_open_until_a_close_that_came_later() -> None:
    opened = record(Type.OPEN, 1, 5 * SECOND, target=A, type_flags=2)
    closed = record(Type.CLOSE, 2, 6 * SECOND, target=A)
    again = record(Type.OPEN, 3, 7 * SECOND, target=A, type_flags=2)
    assert flags_of(opened, closed)[A] & (F.OPEN | F.CLOSED) == F.CLOSED
    assert flags_of(closed, opened)[A] & (F.OPEN | F.CLOSED) == F.CLOSED, "records of two servers come in any order"
    reader = record(Type.CLOSE, 3, 7 * SECOND, target=A, type_flags=1)
    assert flags_of(opened, reader)[A] & (F.OPEN | F.CLOSED) == F.OPEN, "whoever writes has it open still"
    assert flags_of(opened, closed, again)[A] & (F.OPEN | F.CLOSED) == F.OPEN
    assert reduced(closed, opened)[A][1] == 6 * SECOND


def test_a_migration_renumbers_unless_the_number_stays() -> None:
    reduction = Reduction()
    moved = record(Type.MIGRT, 1, target=B, parent=C, name=b"n", source=A, source_parent=D, source_name=b"n")
    stayed = record(Type.MIGRT, 2, target=A, parent=C, name=b"n", source=A, source_parent=D, source_name=b"n")
    reduction.feed(moved.encode() + stayed.encode(), Stream())
    assert list(reduction.renumbered()) == [(A, B)]
    assert set(hints_of(reduction)) == {A, B, C, D}


# ── Indices ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def changelog(*indices: int) -> bytes:
    return b"".join(record(Type.SATTR, index, target=A, jobid=b"job") .encode() for index in indices)  # fmt: skip


def test_holes_and_steps_back_are_seen_across_reads() -> None:
    stream = Stream(expected=3)
    reduction = Reduction()
    assert reduction.feed(changelog(3, 4, 7), stream) == 3
    assert reduction.feed(changelog(10), stream) == 1
    assert (stream.first, stream.last, stream.holes, stream.went_back) == (3, 10, [(5, 6), (8, 9)], False)
    reduction.feed(changelog(2), stream)
    assert stream.went_back


def test_any_index_may_come_first_and_a_watched_one_is_remembered() -> None:
    stream = Stream(watch=12)
    Reduction().feed(changelog(11, 12, 13), stream)
    assert (stream.holes, stream.watched) == ([], (1 << 30, A))
    assert stream.types == {Type.SATTR: 3}


# ── What cannot be understood ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_extension_of_unknown_length_is_passed_over() -> None:
    def newer(index: int, target: bytes) -> bytes:
        data = bytearray(record(Type.CLOSE, index, target=target, owner=(1, 2), name=b"name").encode())
        data[64] |= 0x40  # cr_extra_flags: an extension that Lustre 2.17 does not have
        return bytes(data[:-4]) + bytes(range(40)) + b"name"

    stream, reduction = Stream(), Reduction()
    known = record(Type.CLOSE, 3, target=C).encode()
    assert reduction.feed(newer(1, A) + newer(2, B) + known, stream) == 3
    assert (set(hints_of(reduction)), stream.unknown) == ({A, B, C}, 2)
    assert reduction.feed(newer(4, D), stream) == 1
    assert reduction.feed(newer(5, D) + record(Type.CLOSE, 9, target=A).encode(), stream) == 2
    assert stream.holes == [(6, 8)]
    with pytest.raises(MalformedError, match=r"after index 9 .* not found"):
        reduction.feed(newer(10, D) + bytes(600), stream)


@pytest.mark.parametrize("cut", [1, 63, 64, 70, 100])
def test_records_before_a_malformed_one_are_taken(cut: int) -> None:
    stream, reduction = Stream(), Reduction()
    good = record(Type.CLOSE, 8, target=A).encode()
    bad = record(Type.XATTR, 9, target=B, jobid=b"job", xattr=b"user.x").encode()
    with pytest.raises(MalformedError, match=r"after index 8 .* beyond what was read") as caught:
        reduction.feed(good + bad[:cut], stream)
    assert (caught.value.after_index, caught.value.offset_bytes) == (8, len(good))
    assert set(hints_of(reduction)) == {A}


def test_a_name_longer_than_names_can_be_is_malformed() -> None:
    with pytest.raises(MalformedError, match="length of its name"):
        reduced(record(Type.CREAT, target=A, parent=B, name=bytes(512)))


@given(st.binary(max_size=400), st.integers(0, 2**32))
@settings(deadline=None, max_examples=400)
def test_no_input_leads_beyond_its_end_or_loses_a_good_record_before_it(garbage: bytes, seed: int) -> None:
    chance = random.Random(seed)
    good = [record(chance.choice(list(Type)), index, target=A, parent=B, name=b"n" * chance.randint(0, 255))
            for index in range(1, chance.randint(2, 5))]  # fmt: skip
    stream, reduction = Stream(), Reduction()
    head = b"".join(one.encode() for one in good)
    page = mmap.PAGESIZE
    data = head + garbage
    whole = mmap.mmap(-1, (len(data) // page + 2) * page)
    start = (len(data) // page + 1) * page - len(data)
    whole[start : start + len(data)] = data
    try:
        taken = reduction.feed(memoryview(whole)[start : start + len(data)], stream)
        assert taken >= len(good)
    except MalformedError as error:
        assert error.offset_bytes >= len(head)
    assert stream.records >= len(good)


_OVERRUN = """
import ctypes, mmap, sys
from lb_lustre._records import Reduction, Stream
from lb_lustre.errors import MalformedError
page = mmap.PAGESIZE
area = mmap.mmap(-1, 2 * page)
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(address + page), page, 0) == 0
record = bytes.fromhex(sys.argv[1])
for size in range(len(record) + 1):
    area[page - size : page] = record[:size]
    try:
        Reduction().feed(memoryview(area)[page - size : page], Stream())
    except MalformedError:
        assert size < len(record)
print("in bounds")
"""


def test_nothing_is_read_beyond_the_end_of_a_buffer() -> None:
    """The page after the buffer must not be touched: doing so would end the process."""
    one = record(Type.RENME, target=A, parent=B, name=b"n", source=C, source_parent=D, source_name=b"o", jobid=b"j",
                 owner=(1, 2), nid=bytes(24), open_flags=2, xattr=b"user.x")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _OVERRUN, one.encode().hex()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "in bounds\n"), done.stderr


# ── Many ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_that_grows_loses_nothing_and_stays_small() -> None:
    chance = random.Random(5)
    reduction, stream = Reduction(), Stream()
    expected: dict[bytes, int] = {}
    for start in range(0, 300_000, 1000):
        part = []
        for index in range(start, start + 1000):
            target = fid.pack(0x200000400 + chance.randrange(9), chance.randrange(40_000), 0)
            part.append(record(Type.CLOSE, index + 1, index * SECOND, target=target).encode())
            expected[target] = max(expected.get(target, 0), index * SECOND)
        reduction.feed(b"".join(part), stream)
    assert {object_id: time_ns for object_id, (_, time_ns) in hints_of(reduction).items()} == expected
    floor = 28 << 16
    assert reduction.memory_bytes - floor < 48 * len(reduction)


def test_a_reduction_says_when_it_is_full() -> None:
    reduction = Reduction(limit=2)
    assert not reduction.full
    reduction.feed(b"".join(record(Type.CLOSE, n, target=fid.pack(1, n, 0)).encode() for n in (1, 2, 3)), Stream())
    assert reduction.full
    assert len(reduction) == 3
    with pytest.raises(ValueError, match="between 1 and"):
        Reduction(limit=0)


# ── FIDs and single records ───────────────────────────────────────────────────────────────────────────────────────────


def test_fids_are_written_and_read_as_lfs_does() -> None:
    one = fid.pack(0x200000BD1, 0x3, 0)
    assert fid.text(one) == "[0x200000bd1:0x3:0x0]"
    assert fid.parse("[0x200000bd1:0x3:0x0]") == fid.parse("0x200000BD1:0x3:0x0") == one
    assert fid.unpack(one) == (0x200000BD1, 3, 0)
    assert sorted([fid.pack(2, 0, 0), fid.pack(1, 9, 0), fid.pack(1, 2, 5)]) == [
        fid.pack(1, 2, 5), fid.pack(1, 9, 0), fid.pack(2, 0, 0)
    ]  # fmt: skip
    for wrong in ("", "0x1:0x2", "[0x1:0x2:0x3]x", "1:2:3"):
        with pytest.raises(ValueError, match="is no FID"):
            fid.parse(wrong)


@pytest.mark.parametrize("nid", [
    (bytes.fromhex("0100a8c0" "0000" "0200"), False, b"192.168.0.1@tcp"),
    (bytes.fromhex("0a0000c0" "0100" "0500"), False, b"192.0.0.10@o2ib1"),
    (bytes.fromhex("10" "02" "0000" "20010db8" + "00" * 11 + "01"), True, b"2001:db8::1@tcp"),
    (bytes.fromhex("00" "09" "0000" "00000000"), True, b"0@lo"),
])  # fmt: skip
def test_a_record_is_what_it_was_after_it_was_written(nid: tuple[bytes, bool, bytes]) -> None:
    one = record(Type.RENME, 7, 1_795_309_440_244_172_770, target=A, parent=B, name=b"new\n", source=C, source_parent=D,
                 source_name=b"old", jobid=b"mv.0", owner=(1, 2), nid=nid[0].ljust(24, b"\0"), nid_be=nid[1],
                 open_flags=3, xattr=b"user.x", type_flags=1)  # fmt: skip
    assert list(decode(one.encode() * 2)) == [one, one]
    assert one.text() == (
        b"7 08RENME 01:04:00.244172770 2026.11.22 0x1 t=[0x200000401:0x1:0x0] j=mv.0 ef=0x1f u=1:2 nid=" + nid[2]
        + b" m=rw- x=user.x p=[0x200000401:0x2:0x0] new\n s=[0x200000401:0x3:0x0] sp=[0x200000401:0x4:0x0] old"
    )  # fmt: skip
    with pytest.raises(MalformedError, match="after index 7 "):
        list(decode(one.encode() + one.encode()[:-1]))
