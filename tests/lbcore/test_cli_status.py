"""``lb status``."""

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from lbcore.lock import locked
from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from tests.support.commands import back_up, call, configuration, json_of, output


@pytest.fixture
def job(lb_job: MakeJob) -> Job:
    return lb_job(racy_seconds=0)


@pytest.fixture
def source(job: Job) -> Path:
    return Path(os.fsdecode(job.source))


def test_a_good_job_shows_its_last_run_and_sizes(job: Job, source: Path) -> None:
    (source / "d").mkdir()
    (source / "d/file").write_text("x" * 1000)
    (source / "gone").write_text("y" * 50)
    back_up(job)
    (source / "d/file").write_text("z" * 2000)
    (source / "gone").unlink()
    back_up(job)

    (status,) = json_of(job, "status")
    good = status.pop("last_good")
    assert (good["run"], good["errors"]) == (2, 0)
    assert 0 <= good["age_seconds"] < 60 and abs(good["time_ns"] - time.time_ns()) < 60e9
    assert status == {
        "job": "job",
        "source": os.fsdecode(job.source),
        "target": os.fsdecode(job.target),
        "state": "good",
        "running": None,
        "points": 2,
        "objects": 3,
        "files": 1,
        "files_without_content": 0,
        "bytes": 2000,
        "kept_files": 2,
        "kept_bytes": 1050,
        "open": None,
        "problems": [],
        "hints": 0,
    }
    lines = output(job, "status").splitlines()
    assert lines[0].startswith("job: last good run 2, ") and " ago (" in lines[0]
    assert lines[2:] == [
        "  holds 3 objects: 1 files, 2.0 kB",
        "  points in time: 2; earlier contents kept: 2, 1.1 kB",
    ]


def test_a_content_that_the_mirror_still_holds_is_not_kept_twice(job: Job, source: Path) -> None:
    (source / "file").write_text("x" * 1000)
    back_up(job)
    (source / "file").rename(source / "renamed")
    (source / "renamed").chmod(0o600)
    back_up(job)

    (status,) = json_of(job, "status")
    assert (status["kept_files"], status["kept_bytes"]) == (0, 0)


def test_a_job_that_never_ran_says_so(job: Job) -> None:
    os.mkdir(job.target)
    assert output(job, "status") == "job: no backup yet; 'lb run job' makes it\n"
    assert json_of(job, "status")[0]["state"] == "never run"


def test_a_target_that_is_not_there_is_an_error(job: Job) -> None:
    back_up(job)
    shutil.rmtree(job.target)

    result = call(configuration(job), "status")
    assert result.exit_code == 1
    assert "there is no backup yet" in result.stdout and "is the target not mounted?" in result.stdout
    assert not os.path.exists(job.target)


@pytest.mark.parametrize("lost", [".lb", ".lb/job.db"])
def test_a_backup_that_lost_its_catalog_never_passes_for_one_that_never_ran(job: Job, lost: str) -> None:
    back_up(job)
    path = os.path.join(os.fsdecode(job.target), lost)
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

    result = call(configuration(job), "status")

    assert result.exit_code == 1
    assert "holds a backup, but its catalog" in result.stdout


@pytest.mark.parametrize("empty", [False, True])
def test_a_run_makes_no_empty_catalog_for_a_backup_that_lost_its_own(job: Job, empty: bool) -> None:
    back_up(job)
    path = os.path.join(os.fsdecode(job.target), ".lb/job.db")
    os.unlink(path)
    if empty:
        Path(path).touch()

    for _ in range(2):
        outcome = job.run()
        assert outcome.exit_code == 1
        assert "holds a backup, but its catalog" in outcome.message and "is gone. Bring back" in outcome.message
    assert os.path.lexists(path) == empty
    if not empty:
        assert "holds a backup, but its catalog" in call(configuration(job), "status").stdout


def test_one_damaged_catalog_does_not_hide_the_other_jobs(lb_job: MakeJob) -> None:
    jobs = [lb_job(name="bad"), lb_job(name="good")]
    for one in jobs:
        for number in range(300):
            Path(os.fsdecode(one.source), f"file-{number}").touch()
        back_up(one)
    path = os.path.join(os.fsdecode(jobs[0].target), ".lb/job.db")
    with open(path, "r+b") as database:
        database.seek(4096)
        database.write(b"\xff" * (os.path.getsize(path) - 4096))
    config = configuration(*jobs)

    shown = call(config, "status", "--json")
    bad, good = json.loads(shown.stdout)
    assert (shown.exit_code, bad["state"], good["state"]) == (1, "unreadable", "good")
    assert path in bad["message"] and "bring back a copy" in bad["message"]

    checked = call(config, "verify", "--json")
    bad, good = json.loads(checked.stdout)
    assert (checked.exit_code, good["damage"]) == (1, [])
    assert path in bad["message"] and "bring back a copy" in bad["message"]

    listed = call(config, "ls", "--job", "bad")
    assert listed.exit_code == 1
    assert path in listed.stderr and "bring back a copy" in listed.stderr


def test_a_misconfigured_job_has_its_entry(job: Job) -> None:
    back_up(job)
    config = configuration(job)
    Path(config).write_text(Path(config).read_text() + '\n[job.wrong]\nsource = "/x"\n')
    shown = call(config, "status", "--json")
    wrong, good = json.loads(shown.stdout)
    assert (shown.exit_code, wrong["job"], wrong["state"], good["state"]) == (2, "wrong", "misconfigured", "good")
    shown = call(config, "run", "--json")
    wrong, good = json.loads(shown.stdout)["jobs"]
    assert (shown.exit_code, wrong["job"], wrong["exit_code"], good["exit_code"]) == (2, "wrong", 2, 0)


def test_a_braked_run_is_shown_with_what_to_do(job: Job, source: Path) -> None:
    (source / "file").touch()
    back_up(job)
    (source / "file").unlink()
    assert job.run(max_delete=0).state == "braked"

    (status,) = json_of(job, "status")
    assert (status["state"], status["open"]["run"], status["last_good"]["run"]) == ("braked", 2, 1)
    assert "would remove 1 of 2 objects" in status["open"]["message"]
    text = output(job, "status")
    assert "run 2 is braked, begun " in text and "'lb approve job' lets it go on" in text
    output(job, "approve")
    assert "approved, 'lb run job' may remove up to 1" in output(job, "status")


def test_an_interrupted_run_is_shown_with_what_to_do(job: Job, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "file").touch()
    back_up(job)
    (source / "other").touch()
    with monkeypatch.context() as patch:
        patch.setattr("lbcore.run.place", None)
        with contextlib.suppress(TypeError):
            job.run()

    (status,) = json_of(job, "status")
    assert (status["state"], status["open"]["run"]) == ("applying", 2)
    assert "run 2 is applying, begun " in output(job, "status")
    assert "'lb run job' goes on with it" in output(job, "status")


def test_who_holds_the_lock_is_shown_and_not_disturbed(job: Job, source: Path) -> None:
    back_up(job)
    with locked(os.path.join(job.lb, b"lock")):
        (status,) = json_of(job, "status")
    assert status["state"] == "running"
    assert status["running"].startswith(f"process {os.getpid()} on ")
    assert json_of(job, "status")[0]["running"] is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_what_could_not_be_read_is_listed(job: Job, source: Path) -> None:
    (source / "shut\n").write_text("secret")
    (source / "shut\n").chmod(0)
    assert job.run().exit_code == 3

    (status,) = json_of(job, "status")
    assert status["last_good"]["errors"] == 1
    assert status["problems"] == [{"path": "shut\\n", "reason": "Permission denied", "counted": True}]
    text = output(job, "status")
    assert "  1 problems in the last run:\n    shut\\n: Permission denied\n" in text


def test_objects_that_wait_for_the_next_run_are_counted(lb_job: MakeJob) -> None:
    job = lb_job(racy_seconds=3600)
    with open(job.source + b"/young", "wb") as file:
        file.write(b"young")
    back_up(job)

    assert json_of(job, "status")[0]["hints"] == 1
    assert "  1 objects are looked at again by the next run\n" in output(job, "status")


def test_all_jobs_are_shown_and_a_broken_one_does_not_hide_the_others(lb_job: MakeJob) -> None:
    one, two = lb_job(name="one"), lb_job(name="two")
    back_up(one)
    back_up(two)
    config = configuration(one, two)

    both = call(config, "status")
    assert both.exit_code == 0
    assert "one: last good run 1" in both.stdout and "two: last good run 1" in both.stdout
    assert "one: " not in call(config, "status", "two").stdout

    Path(os.fsdecode(one.lb), "job.db").write_bytes(b"this is no database, whatever its name says" * 100)
    broken = call(config, "status")
    assert broken.exit_code == 1
    assert "one: unreadable: cannot open the catalog" in broken.stdout
    assert "two: last good run 1" in broken.stdout
