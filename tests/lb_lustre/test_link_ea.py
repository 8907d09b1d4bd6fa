"""Link EAs, as a real Lustre wrote them."""

from __future__ import annotations

import json
import struct

import pytest

from lb_lustre import fid, link_ea
from lb_lustre.errors import LustreError
from tests.lb_lustre.recordings import FOLDER, needs_recordings

HEADER = struct.Struct("<IIQII")


def written(*names: tuple[bytes, bytes], overflow: int = 0) -> bytes:
    body = b"".join(struct.pack(">H", 18 + len(name)) + parent + name for parent, name in names)
    return HEADER.pack(0x11EAF1DF, len(names), HEADER.size + len(body), overflow, 0) + body


@needs_recordings
def test_recorded_link_eas_hold_the_names_that_the_tree_has() -> None:
    checked = 0
    for path in sorted(FOLDER.glob("*.after.jsonl")):
        nodes = [json.loads(line) for line in path.read_text().splitlines()]
        fids = {node["path"]: node["fid"] for node in nodes if node["fid"]}
        names: dict[str, set[tuple[bytes, bytes]]] = {}
        for node in nodes:
            parent, _, name = bytes.fromhex(node["path_hex"]).rpartition(b"/")
            above = fids.get(parent.decode("utf-8", "surrogateescape") or ".")
            if node["path"] != "." and above is not None:
                names.setdefault(node["fid"], set()).add((fid.parse(above), name))
        for node in nodes:
            data = (node.get("xattrs") or {}).get(link_ea.XATTR)
            if data is not None and node["fid"] in names:
                links = link_ea.parse(bytes.fromhex(data))
                # Below a striped directory the parent is the shard, which has no path of its own.
                known = {(parent, name) for parent, name in links.names if fid.text(parent) in fids.values()}
                assert known == names[node["fid"]] or {name for _, name in names[node["fid"]]} == {
                    name for _, name in links.names
                }, node["path"]
                assert not links.overflow
                checked += 1
    assert checked > 500


def test_names_may_hold_anything_and_an_overflow_is_told() -> None:
    parent = fid.pack(0x200000401, 7, 0)
    names = [(parent, b"a\nb"), (fid.ROOT, b"\xff" * 255)]
    assert link_ea.parse(written(*names)) == (names, False)
    assert link_ea.parse(written(*names, overflow=1)) == (names, True)
    swapped = struct.pack(">IIQII", 0x11EAF1DF, 1, HEADER.size + 19, 0, 0) + written((parent, b"x"))[HEADER.size :]
    assert link_ea.parse(swapped) == ([(parent, b"x")], False)


@pytest.mark.parametrize("wrong", [
    b"", b"short", bytes(24), written((fid.ROOT, b"name"))[:-1],
    HEADER.pack(0x11EAF1DF, 1, HEADER.size, 0, 0),
    HEADER.pack(0x11EAF1DF, 1, HEADER.size + 18, 0, 0) + struct.pack(">H", 18) + fid.ROOT,
    HEADER.pack(0x11EAF1DF, 1, HEADER.size + 20, 0, 0) + struct.pack(">H", 99) + fid.ROOT + b"ab",
])  # fmt: skip
def test_what_is_no_link_ea_is_an_error(wrong: bytes) -> None:
    with pytest.raises(LustreError, match="link EA"):
        link_ea.parse(wrong)
