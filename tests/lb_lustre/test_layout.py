"""Layouts, as a real Lustre wrote them; and what only pretends to be one."""

from __future__ import annotations

import dataclasses
import json
import struct

import pytest

from lb_lustre import layout
from lb_lustre.errors import LustreError
from lb_lustre.layout import Component, Composite, Plain
from tests.lb_lustre.recordings import FOLDER, needs_recordings

POOLED = Plain(
    pattern=1, object_id=bytes(16), stripe_size=1 << 20, stripe_count=4, stripe_offset=0xFFFF, pool=b"fast",
    objects=b"",
)  # fmt: skip
UNPOOLED = dataclasses.replace(POOLED, pool=None, object_id=b"x" * 16, stripe_offset=2, objects=b"o" * 48)
MIXED = Composite(
    generation=3, flags=1, rest=b"\x01" + bytes(15),
    components=tuple(
        Component(id=number, flags=0x10, start=0, end=1 << 20, generation=2, time_stamp=b"t" * 8, padding=b"p" * 4,
                  layout=part)
        for number, part in enumerate((POOLED, UNPOOLED))
    ),
)  # fmt: skip


def recorded() -> list[bytes]:
    blobs = []
    for path in sorted(FOLDER.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            data = (json.loads(line).get("xattrs") or {}).get(layout.XATTR) if '"lustre.lov"' in line else None
            blobs += [bytes.fromhex(data)] if data else []
    return blobs


@needs_recordings
def test_recorded_layouts_are_understood_and_written_the_same() -> None:
    blobs = recorded()
    assert len(blobs) > 1000
    for blob in blobs:
        assert layout.emit(layout.parse(blob)) == blob
    kinds = {layout.emit(layout.template(layout.parse(blob))) for blob in blobs}
    assert len(kinds) == 8, "what is laid out alike is the same, whatever objects it has"


@pytest.mark.parametrize("one", [POOLED, UNPOOLED, MIXED])
def test_a_template_has_nothing_of_the_original_only(one: layout.Layout) -> None:
    assert layout.parse(layout.emit(one)) == one
    template = layout.template(one)
    assert layout.parse(layout.emit(template)) == template == layout.template(template)
    assert b"x" * 16 not in layout.emit(template) and b"o" * 24 not in layout.emit(template)
    assert layout.pools(template) == layout.pools(one)


def test_pools_get_the_names_that_they_have_here() -> None:
    def named(to: bytes) -> set[bytes]:
        return layout.pools(layout.for_new_file(MIXED, {b"fast": to, b"other": b"wrong"}))

    assert named(b"slow") == {b"slow"}
    assert named(b"") == set(), "no pool"
    assert named(b"x" * 15) == {b"x" * 15}
    with pytest.raises(LustreError, match="too long"):
        named(b"x" * 16)


def test_a_new_file_is_not_released() -> None:
    released = dataclasses.replace(POOLED, pattern=layout.RELEASED | 1)
    assert layout.is_released(released) and not layout.is_released(POOLED)
    assert layout.for_new_file(released, {}) == POOLED


def test_a_form_that_is_not_known_is_kept_as_it_is() -> None:
    foreign = struct.pack("<I", 0x0BD70BD0) + b"anything"
    assert layout.emit(layout.template(layout.parse(foreign))) == foreign
    assert not layout.is_released(layout.parse(foreign))


WHOLE = layout.emit(MIXED)


@pytest.mark.parametrize("wrong", [
    b"", b"abc", layout.emit(POOLED)[:47], layout.emit(POOLED) + b"x", layout.emit(UNPOOLED)[:-1],
    WHOLE[:31], WHOLE[:-1], WHOLE + b"x",
    WHOLE[:14] + b"\xff\xff" + WHOLE[16:],  # more components than there is room for
    WHOLE[:56] + b"\xff\xff\xff\xff" + WHOLE[60:],  # a component that begins beyond the end
    WHOLE[:56] + bytes(4) + WHOLE[60:],  # one that begins in the header
    WHOLE[:60] + b"\xff\xff\xff\xff" + WHOLE[64:],  # one that is too long
    WHOLE[:108] + b"\xff\xff\xff\xff" + WHOLE[112:],  # the last one, which ends where the layout does
    WHOLE[:60] + b"\x03\0\0\0" + WHOLE[64:],  # one that is too short
])  # fmt: skip
def test_what_is_no_whole_layout_is_an_error(wrong: bytes) -> None:
    with pytest.raises(LustreError, match="layout"):
        layout.parse(wrong)


def test_no_prefix_of_a_layout_and_no_changed_byte_of_its_head_is_read_beyond_its_end() -> None:
    for end in range(len(WHOLE)):
        with pytest.raises(LustreError):
            layout.parse(WHOLE[:end])
    for at in range(128):
        for value in (0x00, 0x7F, 0xFF):
            try:
                found = layout.parse(WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :])
            except LustreError:
                continue
            assert len(layout.emit(found)) <= len(WHOLE)
