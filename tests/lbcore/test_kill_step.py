"""Kill, or pause, ``lb run`` at each of its own steps. (``test_kill_syscall.py`` does it at system calls.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.attempts import Backup, Series, until_nothing_fires, was_killed

pytestmark = pytest.mark.sweep

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(__file__)), "support", "fault_points.py")
PAUSED = 75


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return Series(tmp_path_factory.mktemp("steps"))


def run(backup: Backup, fault: str) -> subprocess.CompletedProcess[str]:
    """``lb run`` that does ``fault`` to itself."""
    return subprocess.run(
        [sys.executable, PROGRAM, "-c", str(backup.config), "run"],
        capture_output=True,
        text=True,
        env={**os.environ, "LB_TEST_FAULT": fault},
        check=False,
        timeout=120,
    )


def test_the_steps_are_many_and_of_all_kinds(series: Series) -> None:
    done = run(series.backup(), "count")
    assert done.returncode == 0, done
    steps = done.stderr.split("\n")
    assert len(steps) > 150
    assert {"lift", "set_down", "replace", "link", "unlink", "remove_directory", "sync", "set_attributes", "_dress",
            "_place", "after transaction", "end of transaction", "after _stage"} <= set(steps)  # fmt: skip


@pytest.mark.parametrize(
    "remainder", [0, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_a_run_killed_at_any_step_is_completed_by_the_next(series: Series, remainder: int) -> None:
    def attempt(number: int) -> bool:
        backup = series.backup()
        done = run(backup, f"kill:{number}")
        assert was_killed(done) or done.returncode == 0, done
        try:
            backup.assert_converges()
        except AssertionError as error:
            raise AssertionError(f"killed at step {number}: {error}") from error
        backup.drop()
        return was_killed(done)

    assert until_nothing_fires(attempt, start=1 + remainder, step=6) > 20


def test_a_terminated_run_pauses_at_its_next_batch_and_the_next_run_goes_on_with_it(series: Series) -> None:
    paused = []

    def attempt(number: int) -> bool:
        backup = series.backup()
        done = run(backup, f"term:{number}")
        assert done.returncode in (0, PAUSED), done
        if done.returncode == PAUSED:
            paused.append(number)
            assert "run 3 is paused; 'lb run' goes on with it" in done.stderr
            assert [run for run, _ in backup.runs()] == [1, 2, 3]
            backup.assert_converges()
            with backup.database() as database:
                rows = database.execute("SELECT run, state, resumed FROM run WHERE run > 2").fetchall()
            assert rows == [(3, "committed", 1)]
        backup.assert_whole()
        backup.drop()
        return number < 190

    until_nothing_fires(attempt, start=5, step=20)
    assert len(paused) >= 3


def test_a_run_may_be_paused_again_and_again(tmp_path: Path) -> None:
    backup = Series(tmp_path).backup()
    codes = [run(backup, "term:40").returncode for _ in range(6)]
    assert codes[0] == PAUSED
    assert set(codes) <= {0, PAUSED}
    backup.assert_converges()


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_what_somebody_puts_in_the_place_of_a_new_file_after_a_kill_is_set_aside(tmp_path: Path, kind: str) -> None:
    series = Series(tmp_path)
    count = run(series.backup(), "count").stderr.splitlines()
    backup = series.backup()
    assert was_killed(run(backup, f"kill:{count.index('_place') + 3}"))
    stray = backup.target / "tree" / "new" / "empty"
    stray.unlink(missing_ok=True)
    if kind == "directory":
        (stray / "sub").mkdir(parents=True)
    elif kind == "symlink":
        stray.symlink_to(tmp_path)
    else:
        stray.write_text("somebody's")
    backup.assert_converges(strays=True)
