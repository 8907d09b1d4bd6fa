"""Content is copied with its holes, and the digest is that of all of it."""

import errno
import os
from pathlib import Path

import pytest
import xxhash

from lbcore import _posix
from lbcore.builtin.copy import Copy
from lbcore.copying import ReadError, copy_content, digest_of
from lbcore.model import Attributes, Delivered, NotDelivered, TransferItem, View

MIB = 1 << 20
PARTS: dict[str, list[tuple[int, bytes]]] = {
    "empty": [],
    "small": [(0, b"content")],
    "of one block": [(0, b"x" * MIB)],
    "of several blocks": [(0, os.urandom(3 * MIB + 17))],
    "hole only": [(5 * MIB, b"")],
    "hole first": [(5 * MIB, b"island")],
    "hole last": [(0, b"island"), (5 * MIB, b"")],
    "holes between": [(MIB, b"a" * 5000), (3 * MIB, b"b" * MIB), (9 * MIB + 1, b"c")],
    "small hole": [(40_000, b"end")],
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_a_copy_has_the_content_the_holes_and_the_right_digest(tmp_path: Path, parts: list[tuple[int, bytes]]) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    with original.open("wb") as file:
        for offset, data in parts:
            file.truncate(offset)
            file.seek(offset)
            file.write(data)
    content = original.read_bytes()
    with original.open("rb") as incoming, copy.open("wb") as outgoing:
        size, digest = copy_content(incoming.fileno(), outgoing.fileno())
        again = digest_of(incoming.fileno())

    assert (size, digest) == (len(content), xxhash.xxh3_128_digest(content))
    assert again == digest
    assert copy.read_bytes() == content
    assert copy.stat().st_blocks <= original.stat().st_blocks


def test_a_failure_to_read_is_told_from_a_failure_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    for_reading = os.open(tmp_path / "file", os.O_RDONLY)
    for_writing = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError) as unwritable:
            copy_content(for_reading, for_reading)
        assert unwritable.value.errno == errno.EBADF
        os.write(for_writing, b"content")
        with pytest.raises(ReadError) as unreadable:
            copy_content(for_writing, for_reading)
        assert unreadable.value.cause.errno == errno.EBADF
        with pytest.raises(OSError) as undigestible:
            digest_of(for_writing)
        assert undigestible.value.errno == errno.EBADF
    finally:
        os.close(for_reading)
        os.close(for_writing)


@pytest.mark.parametrize("size", [10, 2 * MIB])
def test_another_object_in_the_same_state_is_not_read(tmp_path: Path, size: int) -> None:
    """Times of a whole second may be those of two files, and a name may have moved on meanwhile."""
    for folder in ("view", "in", "tree"):
        (tmp_path / folder).mkdir()
    (tmp_path / "view/file").write_bytes(os.urandom(size))
    fd = os.open(tmp_path / "view", os.O_RDONLY)
    try:
        found = _posix.look(fd, b"file")
    finally:
        os.close(fd)
    attributes = Attributes._make(found[1:9])
    view = View(root=os.fsencode(tmp_path / "view"), stable=True)
    other = (1).to_bytes(8, "big") + found[0][8:]
    items = [TransferItem(obj, b"file", one, attributes, None) for obj, one in ((1, found[0]), (2, other))]
    delivered, refused = Copy().deliver(view, items, os.fsencode(tmp_path / "in"), os.fsencode(tmp_path / "tree"))
    assert isinstance(delivered, Delivered)
    assert refused == NotDelivered(obj=2, reason="changed while it was read", changed=True)
