"""Nothing is marked in the catalog before it is durable: the order of system calls, as strace saw them.

Killing a process cannot show this, and a machine that loses power is not at hand: so the order itself is looked at.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.attempts import Backup, Series, needs_strace

pytestmark = needs_strace

CHANGES = (
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,mknod,mknodat,mkdir,mkdirat,unlink,unlinkat,rmdir,"
    "chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat,setxattr,lsetxattr,fsetxattr,removexattr"
)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return Series(tmp_path_factory.mktemp("order"))


def events(backup: Backup, arguments: tuple[str, ...] = ("run",)) -> list[tuple[str, str]]:
    """What a run did, in order: ("change", line), ("sync", ...), ("mark", ...) for each write to the WAL."""
    done = backup.strace("-e", f"trace={CHANGES},pwrite64,syncfs,fsync,fdatasync", arguments=arguments)
    assert done.returncode == 0, done
    tree, stage, versions = (f"{backup.target}/{name}" for name in ("tree", ".lb/stage", ".lb/versions"))
    found = []
    for line in backup.trace.splitlines():
        name = line.partition(" ")[2].strip().split("(")[0]
        if " = -1 " in line:
            continue
        if name == "syncfs":
            found.append(("sync", line))
        elif name == "pwrite64" and "job.db-wal>" in line:
            found.append(("mark", line))
        elif f"{stage}/" in line if name == "pwrite64" else is_of_the_mirror(line, tree, stage, versions):
            found.append(("change", line))
    return found


def is_of_the_mirror(line: str, *places: str) -> bool:
    """Whether a call changes what a mark speaks of; emptying the arrivals is not, nor is making folders for them."""
    if "/proc/self/fd" in line:
        return True
    if re.search(r"(unlinkat|rmdir|unlink|mkdirat|mkdir)\(.*stage|mkdir\(", line):
        return False
    return any(place in line for place in places)


@pytest.mark.parametrize("first", [False, True], ids=["a later run", "a first backup"])
def test_no_mark_is_written_between_a_change_of_the_mirror_and_the_next_sync(series: Series, first: bool) -> None:
    backup = series.first_backup() if first else series.backup()
    unsafe = None
    changes = marks = syncs = 0
    for kind, line in events(backup):
        if kind == "change":
            unsafe, changes = line, changes + 1
        elif kind == "sync":
            unsafe, syncs = None, syncs + 1
        else:
            marks += 1
            assert unsafe is None, f"\n{unsafe}\nwas not durable when this was written:\n{line}"
    assert changes > 40 and marks > 20 and syncs >= (3 if first else 6)


def test_every_commit_is_followed_by_a_sync_of_the_log_before_anything_else_changes(series: Series) -> None:
    backup = series.backup()
    done = backup.strace("-e", f"trace={CHANGES},pwrite64,fdatasync")
    assert done.returncode == 0
    written = None
    for line in backup.trace.splitlines():
        if "pwrite64" in line and "job.db-wal>" in line:
            written = line
        elif "fdatasync" in line and "job.db-wal>" in line:
            written = None
        elif " = -1 " not in line and re.search(r"(rename|link|unlink|mkdir|chmod|utimens)\w*\(", line):
            # The frames of a large transaction may spill before its commit; small ones are written at the commit.
            assert written is None or f"{backup.target}/" not in line, f"\n{written}\nwas not durable before\n{line}"


def test_the_tree_says_that_a_run_applies_before_anything_of_it_changes(series: Series) -> None:
    backup = series.backup()
    backup.strace("-e", f"trace={CHANGES},fsync,syncfs")
    lines = [line for line in backup.trace.splitlines() if " = -1 " not in line]
    epoch = next(number for number, line in enumerate(lines) if "rename(" in line and '.lb/epoch"' in line)
    assert "fsync(" in lines[epoch - 1] and "epoch.new" in lines[epoch - 1]
    assert "fsync(" in lines[epoch + 1] and f"<{backup.target}/.lb>" in lines[epoch + 1]
    tree = next(number for number, line in enumerate(lines) if f"<{backup.target}/tree" in line)
    assert epoch < tree


def test_the_file_of_a_run_is_durable_before_the_run_is_committed(series: Series, tmp_path: Path) -> None:
    backup = series.backup()
    backup.strace("-e", "trace=rename,fsync,syncfs,pwrite64")
    lines = backup.trace.splitlines()
    renamed = next(number for number, line in enumerate(lines) if "rename(" in line and '.lb/runs/3"' in line)
    assert any("fsync(" in line and "runs/3.part>" in line for line in lines[:renamed])
    assert any("fsync(" in line and "runs/3.xxh128>" in line for line in lines[:renamed])
    assert "syncfs(" in lines[renamed + 1]
    assert any("job.db-wal>" in line for line in lines[renamed + 2 :])
