"""Kill ``lb run`` at every system call that matters; the next run converges, and no point in time is harmed.

SIGKILL comes on entry, before the call does anything: killing at N + 1 is killing right after N. strace counts
the calls of each thread by itself, and the first thread to reach N is where the process is killed. Where the main
thread would always be the first, ``-P`` narrows the calls to the folder that only a worker writes in.

What a kill cannot show is a batch that is marked before it is durable: the kernel keeps what a killed process wrote.
The order of syncs and marks is what ``test_durable_order.py`` looks at.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lbcore.plugins.manager import Plugins
from tests.support.attempts import Backup, Series, needs_strace, until_nothing_fires, was_killed

pytestmark = [needs_strace, pytest.mark.sweep]

ARRIVALS = ".lb/stage/in/0/0"
"""Where the first shard puts what it brings."""
CREATED = (".lb/lock", ".lb/job.db-wal", ".lb/job.db-shm", ".lb/log/3.log", ".lb/epoch.new",
           ".lb/runs/3.part", ".lb/runs/3.xxh128")  # fmt: skip
"""Every place on the target where the third run creates files."""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return Series(tmp_path_factory.mktemp("killed"))


def kill(backup: Backup, call: str, number: int, *paths: str) -> bool:
    """Run until the given call; whether it came to that."""
    narrowed = [option for path in paths for option in ("-P", str(backup.target / path))]
    done = backup.strace("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}", *narrowed)
    killed = was_killed(done)
    assert killed or done.returncode == 0, (call, number, done)
    return killed


def sweep(series: Series, call: str, *paths: str, start: int = 1, step: int = 1, first: bool = False) -> int:
    """Kill at each such call of a run; returns how many there were."""

    def attempt(number: int) -> bool:
        backup = series.first_backup() if first else series.backup()
        killed = kill(backup, call, number, *paths)
        try:
            backup.assert_converges()
        except AssertionError as error:
            raise AssertionError(f"killed at {call} number {number} {paths}: {error}") from error
        backup.drop()
        return killed

    return until_nothing_fires(attempt, start=start, step=step)


@pytest.mark.parametrize(
    "call",
    ["fsync", "syncfs", "rename", "renameat", "renameat2", "linkat", "symlinkat", "mknodat", "unlink", "unlinkat",
     "rmdir", "mkdirat"],
)  # fmt: skip
def test_a_run_killed_at_any_such_call_is_completed_by_the_next(series: Series, call: str) -> None:
    assert sweep(series, call) > 0


def test_a_run_killed_at_any_commit_of_the_catalog_is_completed_by_the_next(series: Series) -> None:
    assert sweep(series, "fdatasync") > 10


@pytest.mark.parametrize("call", ["pwrite64", "fchmodat", "utimensat", pytest.param("openat", marks=pytest.mark.slow)])
def test_a_run_killed_while_a_worker_writes_is_completed_by_the_next(series: Series, call: str) -> None:
    backup = series.backup()
    backup.strace("-e", f"trace={call}")
    arrivals = str(backup.target / ARRIVALS)
    objects = {
        line.split(arrivals + "/")[1].split(">")[0] for line in backup.trace.splitlines() if arrivals + "/" in line
    }
    paths = [f"{ARRIVALS}/{obj}" for obj in sorted(objects)] if call == "pwrite64" else [ARRIVALS]
    assert sweep(series, call, *paths) >= (2 if call == "fchmodat" else 4)  # most modes are right from the start


@pytest.mark.slow
@pytest.mark.parametrize("path", CREATED)
def test_a_run_killed_where_it_creates_a_file_is_completed_by_the_next(series: Series, path: str) -> None:
    assert sweep(series, "openat", path) > 0


@pytest.mark.slow
@pytest.mark.parametrize("call", ["write", "ftruncate", "chmod", "chown", "fchown", "utimensat", "setxattr", "mkdir"])
def test_a_run_killed_at_a_call_of_lesser_weight_is_completed_by_the_next(series: Series, call: str) -> None:
    assert sweep(series, call) > 0


@pytest.mark.slow
def test_a_run_killed_at_some_page_of_the_catalog_is_completed_by_the_next(series: Series) -> None:
    assert sweep(series, "pwrite64", start=3, step=17) > 8


@pytest.mark.slow
@pytest.mark.parametrize("call", ["fdatasync", "syncfs", "renameat2", "linkat", "rename"])
def test_a_first_backup_killed_at_any_such_call_is_completed_by_the_next_run(series: Series, call: str) -> None:
    assert sweep(series, call, first=True, step=2) > 0


@pytest.mark.slow
@pytest.mark.parametrize("call", ["renameat", "linkat", "fdatasync"])
@pytest.mark.parametrize(("before", "at"), [("renameat", 6), ("renameat2", 5), ("linkat", 4)])
def test_a_resumed_run_may_be_killed_anywhere_too(series: Series, before: str, at: int, call: str) -> None:
    def attempt(number: int) -> bool:
        backup = series.backup()
        assert kill(backup, before, at)
        killed = kill(backup, call, number)
        try:
            backup.assert_converges()
        except AssertionError as error:
            raise AssertionError(f"killed at {before} {at}, then at {call} {number}: {error}") from error
        backup.drop()
        return killed

    assert until_nothing_fires(attempt, step=3) > 0 or call != "fdatasync"


@pytest.mark.slow
def test_a_run_with_rsync_killed_at_some_commits_is_completed_by_the_next(tmp_path: Path) -> None:
    if shutil.which("rsync") is None or "rsync" not in Plugins().transfers():
        pytest.skip("needs rsync and the package lb-rsync")
    series = Series(tmp_path, settings=['transfer = ["rsync", "copy"]'])
    assert sweep(series, "fdatasync", start=8, step=2) > 4


def test_a_run_of_many_files_killed_by_any_worker_is_completed_by_the_next(tmp_path: Path) -> None:
    """More than a few files go through the job's executor."""

    def add(source: Path) -> None:
        (source / "many").mkdir()
        for number in range(300):
            (source / "many" / f"{number}").write_text(f"file {number}\n")

    series = Series(tmp_path, settings=["workers = 2"], more=add)
    for shard in range(3):
        backup = series.backup()
        assert kill(backup, "utimensat", 20, f".lb/stage/in/{shard}/0")
        backup.assert_converges()
        backup.drop()
