"""Looking at objects by FID: on a folder that holds, under their FIDs, what a Lustre would show there."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from lb_lustre import fid, link_ea, looking
from lb_lustre.looking import Looking
from lbcore.model import ObjectId, Observation, Unreadable, View
from lbcore.scope import Scope
from tests.lb_lustre.test_link_ea import written
from tests.support.running import needs_root

pytestmark = needs_root  # extended attributes `trusted.*`

TOP, STRIPED, SHARD, PLAIN, FILE = (fid.pack(0x200000401, number, 0) for number in range(1, 6))


class Shown:
    """What ``.lustre/fid`` shows."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / ".lustre/fid").mkdir(parents=True)
        (folder / "top").mkdir()
        monkeypatch.setattr(looking, "look_at_root", lambda path: (TOP, None))

    def add(self, object_id: ObjectId, *names: tuple[ObjectId, bytes], directory: bool = True) -> Path:
        path = self.folder / ".lustre/fid" / fid.text(object_id)
        path.mkdir() if directory else path.touch()
        os.setxattr(path, link_ea.XATTR, written(*names))
        return path

    def looking(self, exclude: Sequence[str] = ()) -> Looking:
        return Looking(View(root=os.fsencode(self.folder / "top"), stable=True), Scope(exclude=exclude))


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    shown = Shown(tmp_path, monkeypatch)
    shown.add(TOP, (fid.ROOT, b"top"))
    return shown


def names(seen: object) -> set[tuple[ObjectId, bytes]]:
    assert isinstance(seen, Observation) and seen.attributes is not None, seen
    return set(seen.names)


def test_the_parent_of_what_is_in_a_striped_directory_is_that_directory_and_not_its_shard(shown: Shown) -> None:
    shown.add(STRIPED, (TOP, b"striped"))
    shown.add(SHARD, (STRIPED, fid.text(SHARD).encode() + b":1"))
    shown.add(PLAIN, (SHARD, b"plain"))
    shown.add(FILE, (PLAIN, b"file"), (SHARD, b"other"), directory=False)
    os.link(shown.folder / ".lustre/fid" / fid.text(FILE), shown.folder / "link")
    looking = shown.looking()
    assert names(looking.look(FILE)) == {(PLAIN, b"file"), (STRIPED, b"other")}
    assert names(looking.look(PLAIN)) == {(STRIPED, b"plain")}
    assert names(shown.looking(exclude=["/striped/plain/"]).look(FILE)) == {(STRIPED, b"other")}


def test_only_the_object_itself_can_be_gone(shown: Shown) -> None:
    shown.add(FILE, (PLAIN, b"file"), directory=False)
    assert shown.looking().look(SHARD) == Observation(id=SHARD, attributes=None)
    seen = shown.looking().look(FILE)
    assert isinstance(seen, Unreadable), "its directory is not there: that says nothing of the file"
    assert "No such file" in seen.reason


def test_what_lies_outside_has_no_name_here(shown: Shown) -> None:
    shown.add(PLAIN, (fid.ROOT, b"elsewhere"))
    shown.add(FILE, (PLAIN, b"file"), directory=False)
    assert names(shown.looking().look(FILE)) == set()


def test_names_beyond_the_link_ea_are_counted(shown: Shown) -> None:
    path = shown.add(FILE, (TOP, b"file"), directory=False)
    os.link(path, shown.folder / "second")
    seen = shown.looking().look(FILE)
    assert isinstance(seen, Observation)
    assert (seen.names, seen.untold) == (((TOP, b"file"),), 1)


@pytest.mark.parametrize("what", ["nothing", "garbage"])
def test_names_that_are_not_known_are_an_error_and_not_gone(shown: Shown, what: str) -> None:
    path = shown.add(FILE, (TOP, b"file"), directory=False)
    if what == "nothing":
        os.removexattr(path, link_ea.XATTR)
    else:
        os.setxattr(path, link_ea.XATTR, struct.pack("<I", 5) + bytes(40))
    seen = shown.looking().look(FILE)
    assert isinstance(seen, Unreadable)
    assert seen.path == fid.text(FILE).encode()
    assert {"nothing": "No data", "garbage": "link EA"}[what] in seen.reason


def test_every_operation_on_an_object_is_announced_before_it(shown: Shown) -> None:
    shown.add(PLAIN, (TOP, b"plain"))
    shown.add(FILE, (PLAIN, b"file"), directory=False)
    asked: list[tuple[ObjectId, int]] = []
    view = View(root=os.fsencode(shown.folder / "top"), stable=True)
    looking = Looking(view, Scope(), lambda object_id, operations: asked.append((object_id, operations)))
    looking.look(FILE)
    assert asked == [(FILE, 1), (FILE, 1), (PLAIN, 1)], "attributes, names, and where the directory is"
    asked.clear()
    looking.look(FILE)
    assert asked == [(FILE, 1), (FILE, 1)]
    asked.clear()
    looking.look(SHARD)
    assert asked == [(SHARD, 1)], "it is gone"
