"""The simulator is tested itself: the scripts of the recorded scenarios give on it what they gave on a real Lustre."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import lb_lustre.simulator
from lb_lustre import fid
from lb_lustre.record import Record, Type
from lbcore.model import ObjectId
from tests.lb_lustre import conftest
from tests.lb_lustre.recordings import needs_recordings
from tests.lb_lustre.scenarios import NAMESPACE, Found, Row, by_object, recorded, rows, simulated

pytestmark = needs_recordings


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that the simulator does differently, on purpose."""

    said: str
    """How the docstring of the simulator begins to say it."""
    edit: Callable[[Row], Row | None]
    """Makes a row, of either, what can be compared; None: it is left out."""


def _existing_opened(row: Row) -> Row:
    created = row.type == "OPEN" and row.flags & 0x8
    if row.type not in ("OPEN", "CLOSE") or created:
        return row
    opened = None if row.opened is None else row.opened & ~os.O_CREAT
    return row._replace(flags=row.flags & ~os.O_CREAT, opened=opened)


def _opens_kept(*objects: bytes) -> Difference:
    def edit(row: Row) -> Row | None:
        reading = row.type in ("OPEN", "CLOSE") and row.flags == 1
        return None if reading and row.object in objects else row

    return Difference(said="A client never keeps a file open", edit=edit)


def _left_out(said: str, *objects: bytes) -> Difference:
    return Difference(said=said, edit=lambda row: None if row.object in objects else row)


def _temporary(row: Row) -> Row:
    def same(name: bytes) -> bytes:
        return re.sub(rb"(^|/)Cu[0-9A-Za-z]{6}$", rb"\1Cu", name)

    return row._replace(
        target=same(row.target), name=same(row.name), source=same(row.source), source_name=same(row.source_name)
    )


EXISTING_OPENED = Difference(said="An open of what exists has no ``O_CREAT``", edit=_existing_opened)
NO_JOB = Difference(said="New files get no ``user.job``", edit=lambda row: None if row.xattr == b"user.job" else row)
TEMPORARY_NAMES = Difference(said="", edit=_temporary)
"""Not of the simulator: ``ln -sf`` makes up a name each time."""

DIFFERENCES: dict[str, list[Difference]] = {
    "a_files": [EXISTING_OPENED, NO_JOB],
    "b_delete": [EXISTING_OPENED],
    "c_rename": [EXISTING_OPENED],
    "d_links": [EXISTING_OPENED, TEMPORARY_NAMES],
    # lfs mkdir opens the directory above each time, and a client that has it open asks the server once.
    "e_dne": [EXISTING_OPENED, _opens_kept(b"e_dne")],
    "f_layout": [
        EXISTING_OPENED,
        _left_out("There are no mirrors", b"f_layout/mnew", b"f_layout/mir", b"f_layout/toext", b"?"),
        _left_out("Files cannot be mapped for writing", b"f_layout/mmnew"),
    ],
    # chattr, lsattr and lfs project open the same files again and again; two were closed only by the last chmod.
    "h_misc": [
        EXISTING_OPENED,
        _opens_kept(b"h_misc/flags/f1", b"h_misc/flags/f2", b"h_misc/flags/f3", b"h_misc/proj", b"h_misc/proj/f1"),
    ],
    "k_mtime": [EXISTING_OPENED],
    "m_defmask": [EXISTING_OPENED],
}
"""Of each scenario, all that is not the same. What is not listed has to be, and what is listed has to differ."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """A scenario, on a real Lustre and on the simulated one."""

    name: str
    real: Found
    ours: Found


@pytest.fixture(scope="module", params=DIFFERENCES)
def played(request: pytest.FixtureRequest) -> Iterator[Played]:
    # Other users have to reach it: some scripts become ``daemon``.
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        os.chmod(folder, 0o755)
        scripts = Path(folder, "scripts")
        scripts.mkdir()
        with conftest.simulated(Path(folder, "lustre")) as lustre:
            lustre.use(patch)
            ours = simulated(request.param, lustre, scripts)
        yield Played(name=request.param, real=recorded(request.param), ours=ours)


def compared(found: Found, differences: Iterable[Difference]) -> dict[bytes, list[Row]]:
    taken: list[Row] = []
    for row in rows(found):
        edited: Row | None = row
        for difference in differences:
            edited = difference.edit(edited) if edited is not None else None
        if edited is not None:
            taken.append(edited)
    return by_object(taken)


def test_each_object_has_the_recorded_records_in_their_order(played: Played) -> None:
    differences = DIFFERENCES[played.name]
    real, ours = compared(played.real, differences), compared(played.ours, differences)
    assert set(real) == set(ours)
    for one in real:
        assert ours[one] == real[one], one


def test_nothing_is_listed_that_is_the_same(played: Played) -> None:
    for difference in DIFFERENCES[played.name]:
        others = [one for one in DIFFERENCES[played.name] if one is not difference]
        assert compared(played.real, others) != compared(played.ours, others), difference.said


def test_each_difference_is_said_where_the_simulator_is_described() -> None:
    assert lb_lustre.simulator.__doc__ is not None
    lines = re.split(r"\n- ", lb_lustre.simulator.__doc__)
    for difference in {one.said for many in DIFFERENCES.values() for one in many} - {""}:
        assert sum(" ".join(line.split()).startswith(difference) for line in lines) == 1, difference


@pytest.mark.parametrize("played", ["f_layout"], indirect=True)
def test_a_file_is_migrated_through_one_that_is_only_opened(played: Played) -> None:
    """Volatile files are left out above, for those that mirrors need."""
    real, ours = (by_object(rows(found))[b"?"] for found in (played.real, played.ours))
    assert ours == real[-2:]


def server_of(object_id: ObjectId) -> int:
    """By its sequence: here each server had one range of them."""
    return max(fid.unpack(object_id)[0] - 0x200000400, 0) // 0x40000000


def where(record: Record) -> int:
    """The server that records it (section 3 of the reference, "Where recorded"; section 9, items 11 to 13)."""
    if record.type == Type.HLINK or (record.type == Type.RENME and record.target == bytes(16)):
        return server_of(record.parent)
    if record.type == Type.MIGRT and record.parent != record.source_parent:
        assert record.source is not None
        return server_of(record.source)
    return server_of(record.target)


def test_each_record_is_on_the_server_where_it_belongs(played: Played) -> None:
    for found in (played.real, played.ours):
        striped = {one for one, path in found[0].items() if path == b"e_dne/st"}  # what is in it may be on any server
        for mdt, record in found[1]:
            assert mdt == where(record) or record.parent in striped, record


def left_behind(found: Found) -> int:
    """Records with a parent that none of the object's names is in."""
    paths, records = found
    above: dict[ObjectId, set[ObjectId]] = {}
    by_path = {path: one for one, path in paths.items()}
    for one, path in paths.items():
        above[one] = {by_path[os.path.dirname(path) or b"."]}
    wrong = 0
    for _, record in records:
        if record.type in NAMESPACE:
            above.setdefault(record.source or record.target, set()).add(record.parent)
        elif record.parent != bytes(16) and record.parent not in above.get(record.target, ()):
            wrong += 1
    return wrong


def test_parents_are_wrong_where_they_were_wrong(played: Played) -> None:
    """Whoever trusts them shall not pass the other tests."""
    print(played.name, left_behind(played.real), left_behind(played.ours))
    assert bool(left_behind(played.ours)) == bool(left_behind(played.real))
