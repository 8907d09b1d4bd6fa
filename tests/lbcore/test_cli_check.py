"""``lb check``: what keeps a job from running is found before it runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lbcore import checking, hookimpl
from lbcore.catalog.catalog import Catalog
from lbcore.errors import SourceError
from lbcore.plugins.types import Finding, SnapshotterPlugin, Source
from lbcore.progress import Progress
from lbcore.run import JobRun, Options, catalog_path
from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from tests.support.commands import call, configuration, lb
from tests.support.running import backed_up, mounted, needs_root


def found(job: Job) -> tuple[int, list[dict[str, Any]]]:
    """Status, and what the command finds that keeps a run from going well."""
    result = job.command("check", "--json")
    (entry,) = json.loads(result.stdout)["jobs"]
    assert (entry["job"], entry["state"], entry["exit_code"]) == (job.name, "checked", result.exit_code)
    return result.exit_code, [one for one in entry["findings"] if one["fatal"]]


def test_a_job_that_can_run_has_nothing_wrong_before_and_after_its_first_run(lb_job: MakeJob) -> None:
    job = lb_job()
    assert found(job) == (0, [])
    assert not os.path.exists(job.target), "it changes nothing"
    backed_up(job)
    assert found(job) == (0, [])


def test_what_is_found_is_said_with_what_to_do(lb_job: MakeJob) -> None:
    job = lb_job()
    os.rmdir(job.source)
    result = lb(job, "check")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "job: see to this:"
    assert lines[1].endswith("cannot be read: No such file or directory; is it mounted, readable for this user?")
    assert lines[2] == "    mount it, or correct 'source' in the configuration"


def test_another_source_than_the_one_that_was_backed_up_is_found(lb_job: MakeJob) -> None:
    job = lb_job()
    backed_up(job)
    os.rename(job.source, job.source + b".away")
    os.mkdir(job.source)
    code, (finding,) = found(job)
    assert (code, "is not the directory this job has backed up so far" in finding["what"]) == (1, True)


def test_a_target_that_is_no_directory_is_found(lb_job: MakeJob) -> None:
    job = lb_job()
    Path(os.fsdecode(job.target)).write_text("a file")
    code, (finding,) = found(job)
    assert (code, finding["what"].endswith("target is not a directory")) == (1, True)


@needs_root
def test_a_target_or_a_folder_for_the_database_that_is_read_only_is_found(lb_job: MakeJob, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    job = lb_job(state_dir=str(state))
    os.mkdir(job.target)
    for folder in (job.target, os.fsencode(state)):
        with mounted(folder):
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
            code, (finding,) = found(job)
            assert (code, finding["what"]) == (1, f"{os.fsdecode(folder)} cannot be written")


def test_a_catalog_that_cannot_be_opened_is_found(lb_job: MakeJob) -> None:
    job = lb_job()
    backed_up(job)
    Path(os.fsdecode(catalog_path(job.config))).write_bytes(b"no database at all" * 1000)
    code, (finding,) = found(job)
    assert (code, "file is not a database" in finding["what"]) == (1, True)


def test_a_run_that_is_not_finished_is_for_later(lb_job: MakeJob) -> None:
    job = lb_job()
    Path(os.fsdecode(job.source), "file").write_text("content")
    outcome = JobRun(job.config, job.plugins, Options(), Progress(), lambda: True).run()
    assert outcome.state == "paused"
    result = job.command("check")
    assert result.exit_code == 0
    assert "  later: run 1 is not finished: run 1 is paused" in result.stdout


@pytest.mark.parametrize(
    ("free", "total", "said", "fatal"),
    [
        (0, 100, "/t has no inodes left", True),
        (4, 100, "/t has 4.0% of its inodes left", False),
        (5, 100, None, None),
        (0, 0, None, None),
    ],
)
def test_little_room_is_for_later_and_none_is_for_now(
    free: int, total: int, said: str | None, fatal: bool | None
) -> None:
    findings = list(checking.check_room("/t", "inodes", free, total))
    assert [(one.what, one.fatal) for one in findings] == ([] if said is None else [(said, fatal)])


class Complaining:
    """A plugin with the snapshotter ``complaining``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    stable = True

    def create(self, path: bytes, name: str) -> None:
        raise AssertionError("nobody is to make a snapshot")

    def list(self, path: bytes) -> tuple[str, ...]:
        return ()

    def mount(self, path: bytes, name: str) -> Any:
        raise AssertionError("nobody is to mount one")

    def destroy(self, path: bytes, name: str) -> None:
        raise AssertionError("nobody is to destroy one")

    def check(self, source: Source) -> Iterable[Finding]:
        yield Finding(what=f"{source.job} complains", advice="do this")
        if self.error is not None:
            raise self.error
        yield Finding(what="and once more", advice="do that", fatal=False)

    @hookimpl
    def lb_register_snapshotters(self) -> Iterable[SnapshotterPlugin]:
        yield SnapshotterPlugin(name="complaining", summary="complains", create=lambda options: self)


def test_plugins_are_asked(lb_job: MakeJob) -> None:
    job = lb_job(Complaining(), snapshotter="complaining")
    result = job.command("check")
    assert result.exit_code == 1
    assert "  job complains\n    do this\n  later: and once more\n    do that\n" in result.stdout
    job = lb_job(Complaining(SourceError("nothing is there")), name="other", snapshotter="complaining")
    _, findings = found(job)
    assert [one["what"] for one in findings] == ["complaining: nothing is there"]


def test_a_broken_section_does_not_hold_up_the_check_of_others(lb_job: MakeJob) -> None:
    good, bad = lb_job(name="good"), lb_job(name="bad")
    config = configuration(good, bad, more="")
    Path(config).write_text(Path(config).read_text() + '\ndetector = "none such"\n')
    result = call(config, "check", "--json")
    jobs = {one["job"]: one for one in json.loads(result.stdout)["jobs"]}
    assert (result.exit_code, jobs["good"]["exit_code"], jobs["bad"]["state"]) == (2, 0, "failed")


def test_a_user_who_is_not_root_is_told(lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = lb_job().command("check")
    assert (result.exit_code, "later: this is not root" in result.stdout) == (0, True)


def test_a_catalog_that_another_process_writes_to_is_no_fault(lb_job: MakeJob) -> None:
    job = lb_job()
    backed_up(job)
    catalog = Catalog.open(catalog_path(job.config))
    with catalog.database.transaction():
        assert found(job) == (0, [])
    catalog.close()
