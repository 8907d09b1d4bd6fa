"""``lb runs``."""

import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from tests.support.commands import back_up, call, configuration, json_of, lb, output


@pytest.fixture
def job(lb_job: MakeJob) -> Job:
    return lb_job(racy_seconds=0)


@pytest.fixture
def source(job: Job) -> Path:
    return Path(os.fsdecode(job.source))


def test_each_run_is_listed_with_times_and_counts_newest_last(job: Job, source: Path) -> None:
    began = time.time_ns()
    (source / "one").write_text("12345")
    (source / "two").touch()
    back_up(job)
    (source / "one").unlink()
    (source / "two").chmod(0o600)
    back_up(job)
    ended = time.time_ns()

    first, second = json_of(job, "runs")
    assert [first["id"], second["id"]] == [1, 2]
    assert {first["state"], second["state"]} == {"committed"}
    assert (first["counts"]["objects_new"], first["counts"]["bytes_copied"]) == (3, 5)  # the root is one
    assert (second["counts"]["objects_removed"], second["counts"]["files_copied"]) == (1, 0)
    assert (first["errors"], first["gap"], first["message"], first["resumed"]) == (0, None, None, 0)
    names = ("started", "view_from", "view_to", "finished")
    times = [run[f"{name}_ns"] for run in (first, second) for name in names]
    assert times == sorted(times) and began < times[0] and times[-1] < ended
    for run in (first, second):
        for name in names:
            parsed = datetime.fromisoformat(run[name])
            assert parsed.tzinfo is not None
            assert int(parsed.timestamp()) == run[f"{name}_ns"] // 10**9


def test_a_run_that_was_stopped_is_listed_with_its_reason(job: Job, source: Path) -> None:
    for number in range(10):
        (source / str(number)).touch()
    back_up(job)
    for number in range(10):
        (source / str(number)).unlink()
    assert job.run(max_delete=0).state == "braked"

    braked = json_of(job, "runs")[-1]
    assert (braked["id"], braked["state"], braked["finished"]) == (2, "braked", None)
    assert "would remove 10 of 1" in braked["message"]
    line = output(job, "runs").splitlines()[-1]
    assert line.split()[:2] == ["2", "braked"] and "would remove 10 of 1" in line


def test_a_person_reads_a_table_in_local_time(job: Job, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "one").write_text("12345")
    back_up(job)
    view_to = json_of(job, "runs")[0]["view_to_ns"]
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        head, line = output(job, "runs").splitlines()
    finally:
        monkeypatch.undo()
        time.tzset()

    kolkata = datetime.fromtimestamp(view_to // 10**9, timezone(timedelta(hours=5, minutes=30)))
    assert head.split() == ["RUN", "STATE", "TIME", "TOOK", "NEW", "CHANGED", "REMOVED", "COPIED", "NOTE"]
    columns = line.split()
    assert columns.pop(4).endswith("s")  # how long it took is this machine's affair
    assert columns == ["1", "committed", *str(kolkata)[:19].split(), "2", "0", "0", "5", "bytes"]


def test_before_the_first_run_there_is_nothing_to_list(job: Job) -> None:
    result = lb(job, "runs")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no backup yet" in result.stderr


def test_with_several_jobs_one_is_to_be_named(lb_job: MakeJob) -> None:
    one, two = lb_job(name="one"), lb_job(name="two")
    back_up(one)
    back_up(two)
    back_up(two)
    config = configuration(one, two)

    assert call(config, "runs").exit_code == 2
    assert len(call(config, "runs", "one").stdout.splitlines()) == 2
    assert len(call(config, "runs", "two").stdout.splitlines()) == 3
