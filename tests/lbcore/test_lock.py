"""One run at a time on a target, however the one before ended; and nothing that a killed run started goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore.errors import LockedError
from lbcore.lock import locked
from tests.support.attempts import Backup, Series, host_name

LOCKED = 11

WAITING = """
import os, time
from lbcore import hookimpl
from lbcore.builtin.copy import Copy
from lbcore.plugins.types import TransferPlugin

class Waiting(Copy):
    '''Says that it is there, and waits until it may go on.'''

    def deliver(self, view, items, folder, tree):
        open(os.path.join(os.environ["LB_TEST_FOLDER"], "at-work-%d" % os.getpid()), "w").close()
        while not os.path.exists(os.path.join(os.environ["LB_TEST_FOLDER"], "go-on")):
            time.sleep(0.01)  # between two looks
        yield from super().deliver(view, items, folder, tree)

@hookimpl
def lb_register_transfers():
    return [TransferPlugin(name="waiting", summary="waits", create=lambda options: Waiting())]
"""


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return Series(tmp_path)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """In which the transfer ``waiting`` is installed."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "lb_test_waiting.py").write_text(WAITING)
    metadata = site / "lb_test_waiting-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lb-test-waiting\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[lbcore]\nwaiting = lb_test_waiting\n")
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LB_TEST_FOLDER": str(tmp_path)}


@pytest.fixture
def at_work(series: Series, environment: dict[str, str]) -> Iterator[tuple[Backup, subprocess.Popen[str]]]:
    """A run in the middle of its content phase, which does not end by itself."""
    backup = series.backup()
    ordinary = backup.config.read_text()
    backup.config.write_text(ordinary + 'transfer = ["waiting"]\n')
    running = subprocess.Popen(
        backup.command("run"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(series.base.glob("at-work-*")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    backup.config.write_text(ordinary)
    yield backup, running
    running.kill()
    running.communicate()


def test_the_second_run_says_at_once_who_holds_the_lock_and_since_when(
    at_work: tuple[Backup, subprocess.Popen[str]],
) -> None:
    backup, running = at_work
    second = backup.run()
    assert second.returncode == LOCKED
    (line,) = second.stderr.splitlines()
    assert re.match(r"lb: job: .*/\.lb/lock is held by ", line)
    assert f"process {running.pid} on {host_name()} since 20" in line
    assert running.poll() is None
    (backup.series.base / "go-on").touch()
    assert running.wait() == 0
    backup.assert_whole()


def test_a_killed_run_does_not_hold_up_the_next_one(at_work: tuple[Backup, subprocess.Popen[str]]) -> None:
    backup, running = at_work
    running.kill()
    running.wait()
    assert str(running.pid) in (backup.target / ".lb" / "lock").read_text()
    assert backup.run().returncode == 0
    backup.assert_whole()


def test_a_run_that_is_interrupted_from_the_keyboard_is_gone_on_with(
    at_work: tuple[Backup, subprocess.Popen[str]],
) -> None:
    backup, running = at_work
    running.send_signal(signal.SIGINT)
    (backup.series.base / "go-on").touch()
    _, errors = running.communicate()
    assert running.returncode == 130
    assert "Traceback" not in errors
    backup.assert_converges()


def children(parent: int) -> set[int]:
    """The processes that ``parent`` began, and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | children(child)
    return found


def test_a_run_of_many_files_has_no_process_that_could_outlive_it(
    series: Series, environment: dict[str, str], tmp_path: Path
) -> None:
    backup = series.backup()
    ordinary = backup.config.read_text()
    (series.source.path / "more").mkdir()
    for number in range(250):
        (series.source.path / "more" / str(number)).write_text("more\n")
    backup.config.write_text(ordinary + 'transfer = ["waiting"]\nworkers = 2\n')
    running = subprocess.Popen(backup.command("run"), env=environment, stdout=subprocess.DEVNULL)
    try:
        while not list(tmp_path.glob("at-work-*")):
            assert running.poll() is None
            time.sleep(0.01)  # between two looks
        assert children(running.pid) == set()
    finally:
        running.kill()
        running.wait()
    backup.config.write_text(ordinary)
    assert backup.run().returncode == 0


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "lock")
    with pytest.raises(ValueError, match="inside"), locked(path):
        with pytest.raises(LockedError, match=rf"process {os.getpid()} on "), locked(path):
            pytest.fail("both hold it")
        raise ValueError("inside")
    with locked(path):
        pass
    assert (tmp_path / "lock").read_text() == ""


def test_a_lock_file_that_says_nothing_of_use_is_no_lock(tmp_path: Path) -> None:
    for content in (b"", b"process 1 on elsewhere since 1970", b"\xff\0garbage\n" * 1000):
        (tmp_path / "lock").write_bytes(content)
        with locked(os.fsencode(tmp_path / "lock")):
            assert (tmp_path / "lock").read_bytes().startswith(b"process ")
