"""``lb restore`` with ``hsm``: files whose content only an archive has are made anew, without it."""

from __future__ import annotations

import dataclasses
import os
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lb_lustre import extras, fid, layout
from lb_lustre.errors import LustreError
from lb_lustre.keeper import LustreExtras
from lb_lustre.options import LustreExtrasOptions
from lb_lustre.stubs import MARK
from lbcore import _posix, xattrs
from lbcore.plugins.types import Absent
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_extras import give_project, lay_out
from tests.lb_lustre.test_layout import MIXED, POOLED
from tests.lb_lustre.test_restore_lustre import Restored, prepared, restored
from tests.lb_lustre.test_simulated import backed_up, shell

__all__ = ["restored"]

MakeJob = Callable[..., Job]
REBIND = ["lhsmtool_posix", "--hsm-root", "/archive", "--rebind"]
PAIR = re.compile(r"(\[0x[0-9a-f:x]+\]) (\[0x[0-9a-f:x]+\])$", re.MULTILINE)


def released_and_lost(lustre: Simulated, make_job: MakeJob, commands: str = "echo one > one") -> Job:
    """A job whose file ``one`` was released before the first run, and removed after it; ``two`` stays."""
    job = prepared(lustre, make_job)
    shell(lustre.root / "from", f"{commands}; echo two > two")
    lustre.ask("release", path="from/one")
    assert job.run().exit_code == 3
    shell(lustre.root / "from", "find . -samefile one -delete")
    return job


def number(path: Path) -> str:
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        return fid.text(_posix.look(directory, os.fsencode(path.name))[0])
    finally:
        os.close(directory)


def state(path: Path) -> dict[str, bytes]:
    return extras.read(os.fsencode(path), 0o100644)


def is_stub(path: Path) -> bool:
    return extras.content_is_away(state(path))


def test_a_stub_has_all_but_the_content_and_is_told_with_the_fids_to_be_rebound(
    lustre: Simulated, make_job: MakeJob, restored: Restored, tmp_path: Path
) -> None:
    job = prepared(lustre, make_job)
    one = lustre.root / "from/one"
    lay_out(one, POOLED)
    one.write_bytes(b"what only the archive has")
    give_project(one, 1000)
    shell(
        lustre.root / "from",
        "setfattr -n user.a -v b one; setfacl -m u:7:rx one; chown 5:6 one; chmod 6751 one; "
        "touch -d '2020-02-02 02:02:02' one; echo two > two",
    )
    before = number(one)
    lustre.ask("release", path="from/one")
    assert job.run().exit_code == 3
    there, kept, attributes = os.lstat(one), state(one), xattrs.read(os.fsencode(one))
    one.unlink()

    to = lustre.root / "to"
    status, said = restored(job, to, hsm="stub")
    made = os.lstat(to / "one")
    names = ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns")
    assert [getattr(made, name) for name in names] == [getattr(there, name) for name in names]
    assert xattrs.read(os.fsencode(to / "one")) == attributes
    assert len(attributes) == 2
    assert {key: value for key, value in state(to / "one").items() if key != extras.HSM} == {
        key: value for key, value in kept.items() if key != extras.HSM
    }
    assert extras.hsm_state(state(to / "one")) == (0x1 | 0x4 | 0x8, 1)
    assert lustre.ask("recalls")[1] == 0
    after = number(to / "one")
    assert status == 3
    assert (
        f"one: made without content, which is in archive 1 of HSM; to be rebound: {before} {after}\n" in said
        and "1 files were made without content: it is not in the backup" in said
    )
    assert (to / "two").read_bytes() == b"two\n"

    with pytest.raises(OSError, match="No data"):
        (to / "one").read_bytes()
    pairs = tmp_path / "pairs"
    pairs.write_text("".join(f"{old} {new}\n" for old, new in PAIR.findall(said)))
    subprocess.run([*REBIND, pairs, lustre.root], check=True)
    assert (to / "one").read_bytes() == b"what only the archive has"


def test_what_is_rebound_can_be_read_at_once(lustre: Simulated, make_job: MakeJob, restored: Restored) -> None:
    job = released_and_lost(lustre, make_job)
    to = lustre.root / "to"
    status, said = restored(job, to, hsm="stub", hsm_rebind=REBIND)
    assert status == 3
    assert "one: made without content, which is in archive 1 of HSM\n" in said
    assert not PAIR.search(said)
    assert is_stub(to / "one") and MARK not in os.listxattr(to / "one")
    assert (to / "one").read_bytes() == b"one\n"


def test_recall_asks_for_the_content_once_the_archive_knows_the_file(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = released_and_lost(lustre, make_job)
    to = lustre.root / "to"
    status, said = restored(job, to, hsm="recall", hsm_rebind=REBIND)
    assert (status, "one: made without content, which is in archive 1 of HSM; asked for\n" in said) == (3, True)
    assert not is_stub(to / "one")
    assert (to / "one").read_bytes() == b"one\n"
    assert lustre.ask("recalls")[1] == 0


def test_what_fails_is_told_with_its_reason_and_what_is_not_rebound_is_not_asked_for(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = released_and_lost(lustre, make_job)
    status, said = restored(job, lustre.root / "a", hsm="recall", lfs="/nowhere/lfs")
    assert status == 3
    assert re.search(r"HSM; not asked for \('/nowhere/lfs' cannot be run: .*\); to be rebound: \[.*\] \[.*\]\n", said)
    status, said = restored(
        job, lustre.root / "b", hsm="recall", hsm_rebind=["sh", "-c", "echo no such copy >&2; exit 9"]
    )
    assert status == 3
    assert re.search(r"HSM; not rebound \('sh' ended with status 9: no such copy\); \[.*\] \[.*\]\n", said)
    assert "asked for" not in said
    assert is_stub(lustre.root / "b/one")


def test_what_the_archive_has_of_a_file_that_is_still_there_stays_its_own(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = prepared(lustre, make_job)
    shell(lustre.root / "from", "echo one > one")
    lustre.ask("release", path="from/one")
    assert job.run().exit_code == 3
    for to, more in (("to", ()), ("from", ("--overwrite",)), ("from", ("--resume",))):
        status, said = restored(job, lustre.root / to, *more, hsm="stub", hsm_rebind=REBIND)
        assert status == 3
        if "--resume" in more:
            assert "one: there already, without content; nothing was rebound\n" in said
        else:
            assert (
                "one: not restored: its content was never at hand in the source, and is not in the backup; what HSM "
                f"has belongs to {number(lustre.root / 'from/one')}, which is on this filesystem\n"
            ) in said
    assert os.listdir(lustre.root / "to") == []
    assert (lustre.root / "from/one").read_bytes() == b"one\n"


def test_a_file_is_not_believed_to_be_gone_because_a_server_does_not_answer(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    shell(lustre.root, "mkdir d0 d1 d2 d3")
    by_server = {server_of(lustre, f"d{each}"): f"d{each}" for each in range(4)}
    here, on_other = by_server[0], by_server[1]
    job = make_job(on_other)
    shell(lustre.root / on_other, "echo one > one")
    lustre.ask("release", path=f"{on_other}/one")
    assert job.run().exit_code == 3
    lustre.ask("disconnect", mdt=1, error="ENOENT")
    status, said = restored(job, lustre.root / here / "to", hsm="stub", hsm_rebind=REBIND)
    assert status == 3
    assert "is on this filesystem cannot be told" in said and "lost+found/MDT0001 to be there" in said
    assert os.listdir(lustre.root / here / "to") == []


def stub_of(lustre: Simulated, kept: dict[str, bytes]) -> list[str]:
    """Make ``new``; what could not be made anew."""
    stubs = LustreExtras(options=LustreExtrasOptions(hsm="stub")).stubs(os.fsencode(lustre.root))
    assert stubs is not None
    file = Absent(id=fid.pack(0x200000400, 999, 0), mode=0o100644, uid=0, gid=0, size=9, mtime_ns=0, extras=kept)
    directory = os.open(lustre.root, os.O_RDONLY)
    try:
        return stubs.make(directory, b"new", file)
    finally:
        os.close(directory)


def server_of(lustre: Simulated, path: str) -> int:
    sequence, _, _ = fid.unpack(fid.parse(lustre.ask("fid_of", path=path)))
    return int(sequence >= 0x240000400)


def test_a_copy_in_the_backup_is_restored_as_ordinary_content(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = prepared(lustre, make_job)
    shell(lustre.root / "from", "echo one > one")
    backed_up(job)
    lustre.ask("release", path="from/one")
    assert job.run().exit_code == 0
    (lustre.root / "from/one").unlink()
    to = lustre.root / "to"
    assert restored(job, to, hsm="recall", hsm_rebind=REBIND) == (0, "")
    assert not is_stub(to / "one")
    assert (to / "one").read_bytes() == b"one\n"


def test_the_names_of_a_file_are_names_of_one_stub(lustre: Simulated, make_job: MakeJob, restored: Restored) -> None:
    job = released_and_lost(lustre, make_job, "echo one > one; ln one other")
    to = lustre.root / "to"
    status, said = restored(job, to, hsm="stub", hsm_rebind=REBIND)
    assert (status, said.count("made without content,")) == (3, 1)
    assert (to / "one").samefile(to / "other")
    assert (to / "other").read_bytes() == b"one\n"


def test_a_layout_that_a_stub_cannot_have_is_told(lustre: Simulated, make_job: MakeJob, restored: Restored) -> None:
    job = prepared(lustre, make_job)
    lay_out(lustre.root / "from/one", POOLED)
    (lustre.root / "from/one").write_bytes(b"one\n")
    lustre.ask("release", path="from/one")
    assert job.run().exit_code == 3
    (lustre.root / "from/one").unlink()
    status, said = restored(job, lustre.root / "to", hsm="stub", hsm_rebind=REBIND, pool_map=["fast=gone"])
    assert status == 3
    assert "one: not recreated: layout (Invalid argument)" in said
    assert (lustre.root / "to/one").read_bytes() == b"one\n"


@pytest.mark.parametrize("one", [MIXED, dataclasses.replace(POOLED, pattern=0x100)])
def test_a_layout_of_other_kinds_is_told_and_the_stub_made_as_is_usual(lustre: Simulated, one: layout.Layout) -> None:
    kept = {extras.HSM: struct.pack("<IIQQ", 0, 0x1 | 0x4 | 0x8, 2, 7), extras.LAYOUT: layout.emit(one)}
    assert stub_of(lustre, kept) == ["layout (a file without content can have stripes of one kind only)"]
    assert extras.hsm_state(state(lustre.root / "new")) == (0x1 | 0x4 | 0x8, 2)


def test_a_restore_that_goes_on_rebinds_what_was_not_and_nothing_else(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = released_and_lost(lustre, make_job)
    to = lustre.root / "to"
    _, first = restored(job, to, hsm="stub")
    made = number(to / "one")
    _, again = restored(job, to, "--resume", hsm="stub")
    assert PAIR.findall(first) == PAIR.findall(again) != []
    assert "made without content, which" in restored(job, to, "--resume", hsm="stub", hsm_rebind=REBIND)[1]
    assert number(to / "one") == made
    status, said = restored(job, to, "--resume", hsm="stub", hsm_rebind=REBIND)
    assert (status, "one: there already, without content; nothing was rebound\n" in said) == (3, True)
    assert (to / "one").read_bytes() == b"one\n"
    status, said = restored(job, to, "--resume", hsm="stub", hsm_rebind=REBIND)
    assert (status, "what is there has content, and stays as it is\n" in said) == (3, True)
    assert number(to / "one") == made


def test_a_released_file_that_only_looks_alike_keeps_what_the_archive_has_of_it(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = released_and_lost(lustre, make_job, "echo one > one; touch -d @1600000000 one")
    (lustre.root / "to").mkdir()
    shell(lustre.root / "to", "echo own > one; touch -d @1600000000 one")
    lustre.ask("release", path="to/one")
    status, said = restored(job, lustre.root / "to", "--resume", hsm="stub", hsm_rebind=REBIND)
    assert (status, "nothing was rebound" in said) == (3, True)
    assert (lustre.root / "to/one").read_bytes() == b"own\n"


def test_what_is_in_the_way_is_replaced_only_when_told(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = released_and_lost(lustre, make_job)
    (lustre.root / "to").mkdir()
    shell(lustre.root / "to", "echo something else > one")
    assert restored(job, lustre.root / "to", hsm="stub", hsm_rebind=REBIND)[0] == 2
    assert (lustre.root / "to/one").read_bytes() == b"something else\n"
    assert restored(job, lustre.root / "to", "--overwrite", hsm="stub", hsm_rebind=REBIND)[0] == 3
    assert (lustre.root / "to/one").read_bytes() == b"one\n"


def test_elsewhere_it_is_listed_and_not_made(
    lustre: Simulated, make_job: MakeJob, restored: Restored, tmp_path: Path
) -> None:
    job = released_and_lost(lustre, make_job)
    status, said = restored(job, tmp_path / "elsewhere", hsm="stub", hsm_rebind=REBIND)
    assert (status, "one: not restored: its content was never at hand" in said) == (3, True)
    assert os.listdir(tmp_path / "elsewhere") == ["two"]


def test_without_the_library_it_is_listed_with_the_reason(
    lustre: Simulated, make_job: MakeJob, restored: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = released_and_lost(lustre, make_job)
    monkeypatch.setenv("LB_LUSTREAPI", "liblustreapi-that-is-nowhere.so.1")
    status, said = restored(job, lustre.root / "to", hsm="stub")
    assert (status, "install the Lustre client's package" in said) == (3, True)
    assert os.listdir(lustre.root / "to") == ["two"]


@pytest.mark.parametrize(
    ("states", "why"), [(None, "only root sees that"), (0x1 | 0x8, "only root sees"), (0x1 | 0x4 | 0x8 | 0x40, "lost")]
)
def test_no_stub_is_made_of_what_no_archive_is_known_to_have(lustre: Simulated, states: int | None, why: str) -> None:
    (lustre.root / "one").touch()
    kept = {}
    if states is not None:
        lustre.ask("set_hsm", path="one", states=states)
        kept = {extras.HSM: os.getxattr(lustre.root / "one", "trusted.hsm")}
    with pytest.raises(LustreError, match=why):
        stub_of(lustre, kept)
    assert os.listdir(lustre.root) == ["one"]


@pytest.mark.parametrize("wrong", [{"hsm": "stubs"}, {"hsm_rebind": ("lhsmtool_posix",)}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, str | tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="hsm"):
        LustreExtrasOptions(**wrong)  # type: ignore[arg-type]
