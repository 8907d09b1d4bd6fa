"""What the key of a backup's node may do on the servers, and what it may not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lb_lustre.errors import LustreError
from lb_lustre.gate import REFUSED, forms, gate
from lb_lustre.lctl import Answer
from lb_lustre.options import LustreOptions
from lb_lustre.snapshots import LustreSnapshots

ALLOWED = forms("scratch")
CREATE = "lctl snapshot_create -F scratch -n lb-home-0a1b2c3d-17"


@pytest.mark.parametrize(
    "line",
    [
        "lctl snapshot_list -F scratch",
        f"{CREATE} -t 30",
        f"{CREATE} -boff",
        "lctl snapshot_mount -F scratch -n lb-a.b-0a1b2c3d-1",
        "lctl snapshot_umount -F scratch -n lb-a.b-0a1b2c3d-1",
        "lctl snapshot_destroy -F scratch -n lb-a.b-0a1b2c3d-1",
        "lctl snapshot_destroy -F scratch -n lb-a.b-0a1b2c3d-1 -f",
        "lctl get_param mdt.scratch-MDT0001.num_exports mdt.scratch-MDT0001.exports.*.open_files",
        "lctl --device scratch-MDT0000 changelog_register -u lb-home -m +open,-atime",
        "lctl --device scratch-MDT0001 changelog_deregister cl12-lb-home",
    ],
)
def test_each_command_of_the_table_passes_word_by_word(line: str) -> None:
    assert gate(line, ALLOWED) == line.split(" ")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "lctl",
        "sh",
        "/usr/sbin/lctl snapshot_list -F scratch",
        "lctl snapshot_list",
        "lctl snapshot_list -F other",
        "lctl snapshot_list -F scratch2",
        "lctl snapshot_list -F scratch -r rsh",
        "lctl -r snapshot_list -F scratch",
        "lctl --version",
        "lctl snapshot_list -F scratch\n",
        "lctl snapshot_list -F scratch\nreboot",
        "lctl snapshot_list -F scratch\0",
        "lctl snapshot_list  -F scratch",
        "lctl snapshot_list\t-F scratch",
        " lctl snapshot_list -F scratch",
        "lctl snapshot_list -F 'scratch'",
        "lctl snapshot_list -F scratch; reboot",
        "lctl snapshot_list -F scratch;reboot",
        "lctl snapshot_list -F scratch && reboot",
        "lctl snapshot_list -F scratch | sh",
        "lctl snapshot_list -F $(reboot)",
        "lctl snapshot_list -F `reboot`",
        f"{CREATE};reboot -t 30",
        f"{CREATE}$(reboot) -t 30",
        f"{CREATE} -t 30 -c $(reboot)",
        f"{CREATE} -t -1",
        f"{CREATE} -t 30\n",
        f"{CREATE} -r /tmp/evil",
        "lctl snapshot_create -F scratch -n -r -boff",
        "lctl snapshot_destroy -F scratch -n S1",
        "lctl snapshot_destroy -F scratch -n lb-../S1",
        "lctl snapshot_destroy -f -F scratch -n lb-a-1",
        "lctl snapshot_modify -F scratch -n lb-a-1 -N S1",
        "lctl get_param -n mdd.scratch-MDT0000.changelog_users mdd.*.sync_permission",
        "lctl get_param -n mdd.other-MDT0000.changelog_users",
        "lctl get_param -n mdd.scratch-MDT0000.changelog_mask",
        "lctl get_param -n mddXscratch-MDT0000.changelog_users",
        "lctl get_param -n mdt.scratch-MDT*.exports.*.stats",
        "lctl set_param -n mdd.scratch-MDT0000.changelog_users",
        "lctl --device other-MDT0000 changelog_register -u lb-home -m +open",
        "lctl --device scratch-MDT0000 changelog_register -u robinhood -m +open",
        "lctl --device scratch-MDT0000 changelog_register -u lb-home -m -n",
        "lctl --device scratch-MDT0000 changelog_deregister cl1",
        "lctl --device scratch-MDT0000 changelog_deregister cl1-robinhood",
        "lctl --device scratch-MDT0000 changelog_clear cl1-lb-home 0",
        "lctl snapshot_list -F \u017fcratch",
    ],
)  # fmt: skip
def test_everything_else_is_refused(line: str) -> None:
    with pytest.raises(LustreError, match="refused"):
        gate(line, ALLOWED)


@pytest.mark.parametrize("name", ["", "a b", "-x", ".*", "toolonganame", "s;x", "s\n"])
def test_a_filesystem_that_cannot_be_one_has_no_table(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a Lustre filesystem"):
        forms(name)


def test_all_that_the_snapshotter_asks_for_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(command: list[str], *, timeout_seconds: float) -> Answer:
        asked.append(" ".join(command))
        listed = "\nfilesystem_name: scratch\nsnapshot_name: lb-a-1\nsnapshot_fsname: 0a\nstatus: unknown\n"
        missing = "Miss snapshot piece on the OST0000." if "destroy" in asked[-1] and "-f" not in command else ""
        return Answer(2 if missing else 0, listed, missing)

    monkeypatch.setattr("lb_lustre.lctl.run", run)
    for barrier in (True, False):
        snapshotter = LustreSnapshots(LustreOptions(filesystem="scratch", barrier=barrier))
        snapshotter.create(b"/", "lb-a-1")
        snapshotter.destroy(b"/", "lb-a-1")
    assert {line.split(" ")[1] for line in asked} == {
        "snapshot_list", "snapshot_create", "snapshot_umount", "snapshot_destroy",
    }  # fmt: skip
    for line in asked:
        assert gate(line, ALLOWED)


def ask(line: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What sshd does with a forced command; ``lctl`` is a program in ``folder`` that prints its words."""
    environment = {**os.environ, "SSH_ORIGINAL_COMMAND": line, "SECRET": "secret"}
    program = (
        "import sys; from lb_lustre import gate; "
        f"gate._ENVIRONMENT['PATH'] = {str(folder)!r} + ':/usr/bin:/bin'; "
        "from lbcore.cli.main import main; sys.argv[:1] = ['lb', 'lustre', 'gate']; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_what_passes_is_run_without_a_shell_and_without_the_callers_environment(tmp_path: Path) -> None:
    (tmp_path / "lctl").write_text('#!/bin/sh\nprintf "<%s>" "$@"; echo "$SECRET"; exit 17\n')
    (tmp_path / "lctl").chmod(0o755)
    (tmp_path / "mdt.scratch-MDT0000.exports.x.open_files").touch()
    asked = ("get_param", "mdt.scratch-MDT0000.num_exports", "mdt.scratch-MDT0000.exports.*.open_files")
    done = ask(f"lctl {' '.join(asked)}", tmp_path, "scratch")
    assert (done.returncode, done.stdout) == (17, "".join(f"<{word}>" for word in asked) + "\n")
    refused = ask("lctl snapshot_list -F scratch;reboot", tmp_path, "scratch")
    assert (refused.returncode, refused.stdout) == (REFUSED, "")
    assert "refused: 'lctl snapshot_list -F scratch;reboot'" in refused.stderr
    assert ask("lctl snapshot_list -F scratch", tmp_path, "a b").returncode == REFUSED
    assert ask("lctl snapshot_list -F scratch", tmp_path).returncode == 2
