"""What ``lctl`` is asked, and how its answers are understood: those of a real Lustre, and the stand-in's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lb_lustre import listing, snapshots
from lb_lustre.errors import LustreError
from lb_lustre.lctl import Answer, Lctl, run
from lb_lustre.listing import Listed
from lb_lustre.mounts import is_mounted
from lb_lustre.options import LustreOptions
from lb_lustre.snapshots import LustreSnapshots
from lbcore.model import View
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.recordings import FOLDER, needs_recordings

NAME = "lb-a-1"


def recorded(name: str) -> list[tuple[str, Answer]]:
    """Every command of a recording with its answer."""
    lines = [json.loads(line) for line in (FOLDER / f"{name}.commands.jsonl").read_text().splitlines()]
    return [(line["cmd"], Answer(line["rc"], line["stdout"], line["stderr"])) for line in lines if "cmd" in line]


@needs_recordings
def test_the_lists_of_a_real_lustre_are_understood() -> None:
    lists = [answer.output for command, answer in recorded("i_snapshot") if command == "lctl snapshot_list -F labfs"]
    assert listing.parse(lists[0]) == []
    assert listing.parse(lists[1]) == [
        Listed(name="S3", filesystem="0888ff01", status="not mount"),
        Listed(name="S2", filesystem="163a6413", status="not mount"),
        Listed(name="S1", filesystem="20a3646e", status="not mount"),
    ]
    assert {one.name for one in listing.parse(lists[2])} == {"S9d", "S9", "S3", "S2", "S1", "-x", ODD}
    (mounted,) = [
        listing.parse(answer.output)
        for command, answer in recorded("l_dirty")
        if command == "lctl snapshot_list -F labfs -n D1"
    ]
    assert mounted == [Listed(name="D1", filesystem="5590854b", status="mounted")]


ODD = "colon:dot.dash-under_1"


def test_a_list_that_is_none_is_an_error_and_never_an_empty_list() -> None:
    for text in ("Usage: snapshot_list", "snapshot_name: S1\nstatus: mounted\n"):
        with pytest.raises(LustreError, match="cannot be understood"):
            listing.parse(text)
    with pytest.raises(LustreError, match="without a name"):
        listing.parse("\nfilesystem_name: a\nstatus: mounted\n")


def test_a_comment_of_several_lines_changes_nothing_of_what_was_said_before() -> None:
    text = "\nfilesystem_name: a\nsnapshot_name: S\ncomment: one\ntwo\nsnapshot_name: T\nstatus: mounted\n"
    assert listing.parse(text) == [Listed(name="S", filesystem="", status="mounted")]


@needs_recordings
@pytest.mark.parametrize(
    ("command", "name", "said"),
    [
        ("lctl snapshot_create -F labfs -n S1", "i_snapshot", "exists|there is one of this name already"),
        ("lctl snapshot_create -F labfs -n D5 -t 1", "l_dirty", "Can't create|raise 'barrier_seconds'"),
        ("lctl snapshot_create -F nofs -n S9", "i_snapshot", "Miss MDT0 in the config file|lsnapshot.log"),
        ("lctl snapshot_mount -F labfs -n NOPE", "i_snapshot", "Invalid argument|if a part of it is gone"),
        ("lctl snapshot_destroy -F labfs -n S1", "i_snapshot", "Can't destroy|a server still has it mounted"),
    ],
)
def test_each_recorded_refusal_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, command: str, name: str, said: str
) -> None:
    answer = next(answer for one, answer in recorded(name) if one == command and answer.status)
    monkeypatch.setattr("lb_lustre.lctl.run", lambda command, timeout_seconds: answer)
    what = command.split()[1]
    options = LustreOptions(filesystem="labfs", retries=0)
    with pytest.raises(LustreError) as caught:
        LustreSnapshots(options)._command(what, b"/", "S1")
    message = str(caught.value)
    assert f"lctl {what} S1 failed with status {answer.status}: " in message
    assert all(part in message for part in said.split("|")[1:]), message


@needs_recordings
def test_the_stand_in_answers_as_a_real_lustre_did(lustre: Simulated) -> None:
    real = dict(recorded("i_snapshot"))
    for command, expected in (
        ("snapshot_list -F labfs -n NOPE", None),
        ("snapshot_mount -F labfs -n NOPE", None),
        ("snapshot_umount -F labfs -n NOPE", None),
        ("snapshot_destroy -F labfs -n NOPE", None),
        ("snapshot_destroy -f -F labfs -n NOPE", None),
        ("snapshot_create -F labfs -n S1", Answer(0, "", "")),
        ("snapshot_create -F labfs -n S1", Answer(17, "", "The snapshot S1 exists\nCan't create the snapshot S1\n")),
        ("snapshot_umount -F labfs -n S1", None),
        ("snapshot_mount -F labfs -n S1", Answer(0, "mounted the snapshot S1 with fsname", "")),
        ("snapshot_mount -F labfs -n S1", None),
        ("snapshot_destroy -F labfs -n S1", Answer(1, "", "Can't destroy the snapshot S1\n")),
        ("snapshot_umount -F labfs -n S1", Answer(0, "", "")),
        ("snapshot_destroy -F labfs -n S1", Answer(0, "", "")),
    ):
        prefix = [sys.executable, "-m", "lb_lustre.simulator.lctl", str(lustre.folder)]
        answer = Lctl(prefix, timeout_seconds=60).run(*command.split())
        wanted = expected or real[f"lctl {command}"]
        assert answer._replace(output=answer.output[: len(wanted.output)]) == wanted, command
    assert lustre.snapshots() == []


def test_a_word_that_a_remote_shell_could_take_for_more_is_not_sent() -> None:
    lctl = Lctl(["echo"], timeout_seconds=60)
    assert (
        lctl.run("get_param", "-n", "mdd.x-MDT*.changelog_users").output
        == "lctl get_param -n mdd.x-MDT*.changelog_users\n"
    )
    for word in ("a b", "a;b", "$(a)", "`a`", "a\nb", "a|b", "a&b", "'a'", "", "a>b", "~", "a\\b"):
        with pytest.raises(ValueError, match="no word for lctl"):
            lctl.run("snapshot_list", word)
    for name in ("-x", "a/b", "a:b", "a@b", "", "a*"):
        with pytest.raises(LustreError, match="no name for a snapshot"):
            LustreSnapshots(LustreOptions(filesystem="x", mgs=("echo",))).create(b"/", name)


def test_a_program_that_does_not_end_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(LustreError, match=r"did not end within 0.5 s"):
        run(["sh", "-c", f"sleep 1000 & echo $! > {pid}; wait"], timeout_seconds=0.5)
    for _ in range(500):  # whoever reaps orphans here may take a moment
        if not Path(f"/proc/{pid.read_text().strip()}").exists() or "Z" in state(pid):
            break
        time.sleep(0.01)  # between two looks
    else:
        pytest.fail("it still runs")
    with pytest.raises(LustreError, match="'/nowhere' cannot be run: No such file"):
        run(["/nowhere"], timeout_seconds=1)


def state(pid: Path) -> str:
    try:
        return Path(f"/proc/{pid.read_text().strip()}/stat").read_text().rpartition(")")[2]
    except OSError:
        return "Z"


@pytest.mark.parametrize(
    "options",
    [
        {"filesystem": "a b"}, {"filesystem": "-x"}, {"device": "10.0.2.15@tcp:/x"}, {"barrier_seconds": 0},
        {"retries": -1}, {"timeout_seconds": 0}, {"mount": ()},
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        LustreOptions(**options)  # type: ignore[arg-type]


# ── Mounts, without servers ───────────────────────────────────────────────────────────────────────────────────────────


class Servers:
    """Answers ``lctl`` from a table, and remembers what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: str, destroyed: str = "") -> None:
        self.asked: list[str] = []
        self.status = status
        self.destroyed = destroyed
        self.refused = ""
        monkeypatch.setattr("lb_lustre.lctl.run", self.run)

    def run(self, command: list[str], *, timeout_seconds: float) -> Answer:
        words = command[1:]
        self.asked.append(" ".join(word for word in words if word not in ("-F", "fs", "-n", NAME)))
        if words[0] == "snapshot_list":
            return Answer(0, f"\nfilesystem_name: fs\nsnapshot_name: {NAME}\nsnapshot_fsname: 0a1b\n"
                             f"status: {self.status}\n", "")  # fmt: skip
        if words[0] == "snapshot_destroy" and "-f" not in words and self.destroyed:
            return Answer(2, "", self.destroyed)
        return Answer(int(self.asked[-1] == self.refused), "", "")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")


def options(tmp_path: Path) -> LustreOptions:
    return LustreOptions(
        filesystem="fs", device="lb-{}", mount=("mount", "-t", "tmpfs"), folder=str(tmp_path / "there"), retries=0
    )


def leave_mounted(tmp_path: Path) -> Path:
    folder = tmp_path / "there" / NAME
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "lb-stale", folder], check=True)
    return folder


@needs_root
@pytest.mark.parametrize(
    ("status", "umounts"), [("mounted", ["snapshot_umount"]), ("not mount", []), ("unknown", ["snapshot_umount"])]
)
def test_what_a_killed_run_left_is_unmounted_here_before_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, umounts: list[str]
) -> None:
    folder = leave_mounted(tmp_path)
    servers = Servers(monkeypatch, status)
    unmounted: list[list[str]] = []

    def run_here(command: list[str], *, timeout_seconds: float) -> Answer:
        assert "snapshot_umount" not in servers.asked
        unmounted.append(command)
        return run(command, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(snapshots, "run", run_here)
    LustreSnapshots(options(tmp_path)).destroy(b"/", NAME)
    assert unmounted == [["umount", *([] if status == "mounted" else ["-f"]), str(folder)]]
    assert servers.asked == ["snapshot_list", *umounts, "snapshot_destroy"]
    assert not folder.exists()


@needs_root
def test_a_mount_that_is_in_use_keeps_its_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = leave_mounted(tmp_path)
    servers = Servers(monkeypatch, "mounted")
    try:
        with open(folder / "used", "w"), pytest.raises(LustreError, match=r"cannot be unmounted: .*busy.*who uses it"):
            LustreSnapshots(options(tmp_path)).destroy(b"/", NAME)
        assert servers.asked == ["snapshot_list"]
    finally:
        subprocess.run(["umount", folder], check=True)


def test_half_a_snapshot_is_destroyed_by_force_and_a_whole_one_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Servers(monkeypatch, "not mount", "Miss snapshot piece on the OST0000. Use '-f' option if want to …\n")
    LustreSnapshots(options(tmp_path)).destroy(b"/", NAME)
    assert half.asked == ["snapshot_list", "snapshot_destroy", "snapshot_destroy -f"]
    whole = Servers(monkeypatch, "not mount", "Can't destroy the snapshot\n")
    with pytest.raises(LustreError, match="snapshot_destroy lb-a-1 failed with status 2"):
        LustreSnapshots(options(tmp_path)).destroy(b"/", NAME)
    assert whole.asked == ["snapshot_list", "snapshot_destroy"]


@needs_root
def test_a_mount_that_fails_leaves_nothing_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Servers(monkeypatch, "not mount")
    snapshotter = LustreSnapshots(
        LustreOptions(filesystem="fs", device="{}", mount=("false",), folder=str(tmp_path), retries=0)
    )
    with pytest.raises(LustreError, match=r"'false 0a1b .*' failed: status 1"), snapshotter.mount(b"/", NAME):
        pytest.fail("there is nothing to look at")
    assert servers.asked == ["snapshot_list", "snapshot_mount", "snapshot_umount"]
    with pytest.raises(LustreError, match="the snapshot lb-b-1 is gone"), snapshotter.mount(b"/", "lb-b-1"):
        pytest.fail("there is nothing to look at")


@needs_root
def test_a_mounted_snapshot_is_for_root_alone_and_does_not_flood_the_servers_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = Servers(monkeypatch, "not mount")
    servers.refused = "set_param mdc.0a1b*.lsom=off"  # an older release calls it otherwise
    monkeypatch.setattr(snapshots, "find_mount", lambda path: b"/")
    with LustreSnapshots(options(tmp_path)).mount(b"/usr/lib", NAME) as view:
        folder = tmp_path / "there" / NAME
        assert view == View(
            root=os.fsencode(folder / "usr/lib"), stable=True, name=NAME, filesystem="0a1b", late_data=True
        )
        assert is_mounted(os.fsencode(folder))
        assert (tmp_path / "there").stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    assert servers.asked == [
        "snapshot_list", "snapshot_mount", servers.refused, "set_param mdc.0a1b*.mdc_lsom=off", "snapshot_umount",
    ]  # fmt: skip
