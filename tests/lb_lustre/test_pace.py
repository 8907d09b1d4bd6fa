"""How many operations a second are asked of each server, by a clock that only goes on when somebody waits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lb_lustre import changelog, fid
from lb_lustre.changelog import Changelog
from lb_lustre.errors import LustreError
from lb_lustre.options import ChangelogOptions
from lb_lustre.pace import Limit, Pace
from lb_lustre.servers import Servers
from lbcore.model import Hint, HintFlag
from lbcore.plugins.types import Source
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_simulated import backed_up, shell


class Time:
    """A clock, and how long was waited."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def pace(limit: Limit, time: Time) -> Pace:
    return Pace(limit, clock=lambda: time.now, sleep=time.sleep)


def test_what_is_asked_in_a_long_time_is_what_the_limit_says() -> None:
    time = Time()
    one = pace(Limit(value=50), time)
    for _ in range(1000):
        one.wait(0, 2)
    assert time.now - 100 == pytest.approx((2000 - 50) / 50), "one second's worth is there at the beginning"
    assert max(time.waits) == pytest.approx(2 / 50)


def test_each_server_has_its_own_and_rest_is_not_saved_up() -> None:
    time = Time()
    one = pace(Limit(value=10), time)
    for server in (0, 1, 2):
        one.wait(server, 10)
    assert time.waits == []
    time.now += 3600
    one.wait(0, 10)
    assert time.waits == []
    one.wait(0, 5)
    assert time.waits == [0.5]


def test_those_who_come_together_wait_one_after_the_other() -> None:
    time = Time()
    one = Pace(Limit(value=10), clock=lambda: time.now, sleep=time.waits.append)
    for _ in range(4):
        one.wait(0, 10)
    assert time.waits == [1.0, 2.0, 3.0]


def test_a_file_is_read_again_while_it_holds_and_what_is_no_number_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    time, file = Time(), tmp_path / "ops"
    file.write_text("10\n")
    one = pace(Limit(value=str(file)), time)
    one.wait(0, 20)
    assert time.waits == [1.0]
    file.write_text("1000")
    one.wait(0, 10)
    assert time.waits == [1.0, 1.0], "not read with every operation"
    time.now += 5
    for said in ("1000", "none", "0", "", None):
        if said is None:
            file.unlink()
        elif said != "1000":
            file.write_text(said)
        one.wait(0, 2000)
        assert time.waits.pop() == pytest.approx(1.0)
        time.now += 5
    assert caplog.text.count("the limit stays 1000") == 4


@pytest.mark.parametrize("written", [0, -5, "", "50", "relative/path"])
def test_what_is_neither_a_number_nor_a_path_is_refused(written: int | str) -> None:
    with pytest.raises(ValueError, match="max_metadata_ops is a number above 0 or the absolute path"):
        Limit(value=written)


def test_a_file_that_says_nothing_at_the_beginning_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LustreError, match=r"/missing cannot be read as a number: .*No such file"):
        pace(Limit(value=str(tmp_path / "missing")), Time())
    (tmp_path / "zero").write_text("0")
    with pytest.raises(LustreError, match=r"/zero holds 0"):
        pace(Limit(value=str(tmp_path / "zero")), Time())


def test_each_server_is_asked_at_the_pace_of_the_option(
    lustre: Simulated, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[int] = Counter()
    real = Pace.wait

    def wait(self: Pace, server: int, operations: int) -> None:
        asked[server] += operations
        real(self, server, operations)

    monkeypatch.setattr(Pace, "wait", wait)
    job = make_job()
    options = {"filesystem": "simfs", "devices": str(lustre.devices), "max_metadata_ops": 100_000}
    job.configure(changelog=options)
    shell(lustre.root, "mkdir top top/a top/b; for i in 1 2 3; do echo $i > top/a/$i; echo $i > top/b/$i; done")
    backed_up(job)
    asked.clear()
    shell(lustre.root, "echo more >> top/b/1; rm top/b/2")
    backed_up(job)
    assert asked[1] >= 5
    assert set(asked) <= {0, 1}
    before = asked[0]
    number = fid.parse(lustre.ask("fid_of", path="top/a/1"))
    detector = Changelog(ChangelogOptions(max_metadata_ops=100_000))
    detector.flush(Source(job="job", path=os.fsencode(lustre.root)), [Hint(id=number, flags=HintFlag.DATA, time_ns=1)])
    assert asked[0] == before + 3
    monkeypatch.setenv("LB_LUSTREAPI", "nowhere.so")
    shell(lustre.root, "echo more >> top/b/1")
    outcome = job.run()
    assert (outcome.exit_code, "nowhere.so is not on this node" in outcome.message) == (1, True)


@pytest.mark.parametrize("snapshotter", ["none", "lustre"])
def test_a_scan_keeps_to_a_limit_that_is_raised_while_it_goes_on(
    lustre: Simulated, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, snapshotter: str
) -> None:
    time, file, asked = Time(), tmp_path / "ops", Counter[int]()
    file.write_text("10")

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if len(time.waits) == 10:
            file.write_text("1000000")
            time.now += 5

    class Watched(Pace):
        def __init__(self, limit: Limit) -> None:
            super().__init__(limit, clock=lambda: time.now, sleep=sleep)

        def wait(self, server: int, operations: int) -> None:
            asked[server] += operations
            super().wait(server, operations)

    monkeypatch.setattr(changelog, "Pace", Watched)
    job = make_job(snapshotter=snapshotter, lustre=lustre.snapshotter() if snapshotter == "lustre" else None)
    options = {"filesystem": "simfs", "devices": str(lustre.devices), "max_metadata_ops": str(file)}
    job.configure(changelog={**options, "flush_seconds": 0})  # a flush would count, too
    shell(lustre.root, "mkdir top top/a top/b; for i in 1 2 3 4 5 6 7 8 9; do echo > top/a/$i; echo > top/b/$i; done")
    lustre.later()
    backed_up(job)
    assert 10 <= len(time.waits) <= 10 + 8, "nobody waits any more, but for those who did already"
    expected = Counter[int]()
    servers = Servers(os.fsencode(lustre.root))
    for path in (".", "top", "top/a", "top/b"):
        directory = lustre.root / path
        looked_at_again = 3 if snapshotter == "none" else 0
        number = fid.parse(lustre.ask("fid_of", path=path if path != "." else ""))
        expected[servers.of(number)] += 3 + 2 * len(os.listdir(directory)) + looked_at_again
    assert asked == expected
    assert len(expected) == 2
    asked.clear()
    file.write_text("nothing")
    outcome = job.run(full=True)
    assert (outcome.exit_code, f"max_metadata_ops: {file} cannot be read" in outcome.message) == (1, True)


def test_options_that_cannot_be_are_refused_when_they_are_read() -> None:
    with pytest.raises(ValueError, match="max_metadata_ops is a number above 0"):
        ChangelogOptions(max_metadata_ops=0)
    with pytest.raises(ValueError, match="reader must be one of auto, device, library, not 'both'"):
        ChangelogOptions(reader="both")
