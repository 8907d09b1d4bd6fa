"""Clocks that go backwards, jump, or are wrong; times that are old, late, negative, or beyond what 32 bits hold."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lbcore.testing import Tree, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.points import read_point

DAY_NS = 86_400 * 10**9
REAL_NS = time.time_ns


class Clock:
    """What this process takes for the time; files keep the kernel's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset_ns = 0
        monkeypatch.setattr(time, "time_ns", lambda: REAL_NS() + self.offset_ns)
        monkeypatch.setattr(time, "time", lambda: (REAL_NS() + self.offset_ns) / 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    job = Job(os.fsencode(tmp_path / "job"), max_delete="100%")
    source = Path(os.fsdecode(job.source))
    for name in ("a", "b", "folder/c", "folder/d"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(f"{name}\n")
    return job


def change(job: Job, number: int) -> None:
    """A new file, a changed one under equal size and time, a moved one, one that goes."""
    source = Path(os.fsdecode(job.source))
    (source / f"new-{number}").write_text("new\n")
    (source / f"new-{number - 1}").unlink(missing_ok=True)
    before = (source / "a").stat()
    (source / "a").write_text(f"{number % 10}\n")
    os.utime(source / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.rename(source / "folder", source / "passing")
    os.rename(source / "passing", source / ("folder" if number % 2 else "other"))
    if not number % 2:
        os.rename(source / "other", source / "folder")


def run_and_check(job: Job, points: dict[int, Tree]) -> int:
    outcome = job.run()
    assert (outcome.state, outcome.exit_code) == ("committed", 0), outcome
    points[outcome.run] = read_tree(job.source)
    for number, point in points.items():
        assert compare_trees(point, read_point(job.target, number)) == [], number
    assert job.differences() == []
    return outcome.run


@pytest.mark.parametrize(
    "offsets",
    [(0, -1, -2, -3), (0, -400, 400, -400), (3650, 0, 0, 0), (-3650, -3651, 0, -1), (0, 0.0417, 0, 0.0417)],
    ids=["ever earlier", "back and forth", "from the future", "from the past", "an hour to and fro"],
)
def test_every_run_is_right_whatever_the_clock_says(job: Job, clock: Clock, offsets: tuple[float, ...]) -> None:
    points: dict[int, Tree] = {}
    for number, days in enumerate(offsets, 1):
        clock.offset_ns = int(days * DAY_NS)
        change(job, number)
        assert run_and_check(job, points) == number
    # Nothing changes any more: further runs end and keep everything as it is.
    for _ in range(2):
        run_and_check(job, points)
    with job.catalog() as catalog:
        numbers = [run.run for run in catalog.runs.all()]
    assert numbers == sorted(numbers)


def test_a_file_changed_in_the_future_is_backed_up_as_any_other_and_looked_at_no_longer_than_that(
    job: Job, clock: Clock
) -> None:
    clock.offset_ns = -10 * DAY_NS  # to lb, every file was changed in ten days
    points: dict[int, Tree] = {}
    for _ in range(3):
        run_and_check(job, points)
    source = Path(os.fsdecode(job.source))
    before = (source / "a").stat()
    (source / "a").write_text("A\n")
    os.utime(source / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    run_and_check(job, points)
    clock.offset_ns = DAY_NS
    run_and_check(job, points)
    run_and_check(job, points)
    with job.catalog() as catalog:
        assert catalog.hints.count() == 0


def test_the_point_at_a_time_is_the_newest_that_is_not_younger(job: Job, clock: Clock) -> None:
    points: dict[int, Tree] = {}
    begun = REAL_NS()
    for days in (0, 10, 5, 20):
        clock.offset_ns = days * DAY_NS
        run_and_check(job, points)
    with job.catalog() as catalog:
        at = [catalog.runs.at_time(begun + int(days * DAY_NS)) for days in (-1, 1, 7, 11, 30)]
    assert [run.run if run else None for run in at] == [None, 1, 3, 3, 4]


def test_the_brake_counts_what_was_removed_before_the_clock_was_set_back(tmp_path: Path, clock: Clock) -> None:
    job = Job(os.fsencode(tmp_path / "job"), max_delete=10)
    source = Path(os.fsdecode(job.source))
    for number in range(30):
        (source / f"{number}").touch()
    assert job.run().exit_code == 0
    for number in range(8):
        (source / f"{number}").unlink()
    assert job.run().exit_code == 0
    clock.offset_ns = -3 * DAY_NS
    for number in range(8, 16):
        (source / f"{number}").unlink()
    assert job.run().state == "braked"
    clock.offset_ns = 9 * DAY_NS
    assert job.run().exit_code == 0
    assert job.differences() == []


TIMES = {
    "1901": -2_147_483_000,
    "before the epoch": -1,
    "the epoch": 0,
    "a second of 31 bits": 2**31 - 1,
    "beyond 31 bits": 2**31,
    "beyond 32 bits": 2**32 + 5,
    "2099": 4_070_908_800,
    "2261": 9_190_000_000,
}


@pytest.mark.parametrize("seconds", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("nanoseconds", [0, 1, 123_456_789, 999_999_999])
def test_times_are_kept_to_the_nanosecond(tmp_path: Path, seconds: int, nanoseconds: int) -> None:
    wanted = seconds * 10**9 + nanoseconds
    job = Job(os.fsencode(tmp_path / "job"))
    source = Path(os.fsdecode(job.source))
    (source / "file").write_text("content\n")
    (source / "folder").mkdir()
    (source / "link").symlink_to("file")
    for name in ("file", "folder", "link"):
        os.utime(source / name, ns=(0, wanted), follow_symlinks=False)
    if (source / "file").stat().st_mtime_ns != wanted:
        pytest.skip("this filesystem does not hold that time")
    points: dict[int, Tree] = {}
    run_and_check(job, points)
    os.utime(source, ns=(0, wanted))
    run_and_check(job, points)
    assert {os.lstat(os.path.join(job.tree, name)).st_mtime_ns for name in (b"file", b"folder", b"link", b"")} == {
        wanted
    }


def test_a_time_later_than_64_bits_of_nanoseconds_hold_does_not_stop_a_backup(tmp_path: Path) -> None:
    job = Job(os.fsencode(tmp_path / "job"))
    source = Path(os.fsdecode(job.source))
    (source / "file").write_text("content\n")
    os.utime(source / "file", ns=(0, 10_000_000_000 * 10**9))  # in the year 2286
    if (source / "file").stat().st_mtime_ns < 2**63:
        pytest.skip("this filesystem does not hold that time")
    for _ in range(2):
        assert job.run().exit_code == 0
        assert compare_trees(job.source, job.tree, ignore=("mtime_ns",)) == []
    # What cannot be held becomes the last time that can, and not one in the past.
    assert os.stat(os.path.join(job.tree, b"file")).st_mtime_ns >= 9_223_372_036 * 10**9
