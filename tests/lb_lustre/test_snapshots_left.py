"""Snapshots that a job does not know how to ask for any more, and what ``lb check`` says of snapshots."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lb_lustre.checking import check_mounting
from lb_lustre.options import LustreOptions
from lbcore.made import Made
from lbcore.plugins.manager import Plugins
from lbcore.progress import Progress
from lbcore.run import JobRun, Options, Outcome
from lbcore.testing import compare_trees
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_simulated import CHANGE, SETUP, backed_up, seen, shell
from tests.support.running import PauseAt, mounted, needs_root

MakeJob = Callable[..., Job]


@pytest.fixture
def job(lustre: Simulated, make_job: MakeJob) -> Job:
    """A job that reads snapshots, with a backup."""
    shell(lustre.root, SETUP)
    job = make_job(snapshotter="lustre", lustre=lustre.snapshotter())
    backed_up(job)
    shell(lustre.root, CHANGE)
    return job


def paused(job: Job, lustre: Simulated) -> tuple[Outcome, str]:
    """A run that keeps its snapshot, and the name of that."""
    outcome = JobRun(job.config, job.plugins, Options(), Progress(), PauseAt(20)).run()
    (snapshot,) = lustre.snapshots()
    assert (outcome.exit_code, snapshot.rpartition("-")[2]) == (75, str(outcome.run))
    return outcome, snapshot


def nothing_left(job: Job, lustre: Simulated) -> None:
    assert (lustre.snapshots(), lustre.mounted()) == ([], [])
    with job.catalog() as catalog:
        assert Made(catalog).snapshotters() == []


def findings(job: Job) -> tuple[int, list[dict[str, Any]]]:
    """Status, and what ``lb check`` says of snapshots."""
    result = job.command("check", "--json")
    (entry,) = json.loads(result.stdout)["jobs"]
    return result.exit_code, [one for one in entry["findings"] if "snapshot" in one["what"]]


def test_a_run_goes_on_in_its_snapshot_when_its_job_is_renamed(lustre: Simulated, job: Job) -> None:
    then = seen(lustre.root)
    outcome, _ = paused(job, lustre)
    job.name = "renamed"
    job.configure()
    shell(lustre.root, "mv d e; echo late > late")
    assert job.run().run == outcome.run
    assert compare_trees(then, seen(job.tree)) == []
    backed_up(job)
    nothing_left(job, lustre)


def test_the_snapshotter_that_a_job_had_before_destroys_what_it_made(lustre: Simulated, job: Job) -> None:
    outcome, snapshot = paused(job, lustre)
    job.configure(snapshotter=None, lustre=None)
    code, (finding,) = findings(job)
    assert (code, finding["fatal"]) == (0, False)
    assert finding["what"] == f"the snapshot {snapshot} was made by the snapshotter 'lustre', which this job had before"
    shell(lustre.root, "mv d e; echo late > late")
    assert backed_up(job).run == outcome.run
    nothing_left(job, lustre)
    with job.catalog() as catalog:
        row = catalog.runs.get(outcome.run)
        assert row is not None and row.snapshot is None
    assert findings(job) == (0, [])


def test_what_it_cannot_destroy_is_named_by_each_run_until_it_can(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, snapshot = paused(job, lustre)
    job.configure(snapshotter=None, lustre=None)
    said = f"{snapshot}: made by the snapshotter 'lustre', which this job had before: "
    with monkeypatch.context() as patch:
        patch.setattr(Plugins, "snapshotters", lambda self: {})
        for _ in range(2):
            outcome = job.run()
            assert (outcome.exit_code, f"{said}snapshotter 'lustre' is not installed" in outcome.message) == (0, True)
    lustre.ask("refuse", command="snapshot_list", status=255)
    outcome = job.run()
    assert (outcome.exit_code, f"{said}lctl snapshot_list failed" in outcome.message) == (0, True)
    lustre.ask("refuse", command="snapshot_destroy", status=1)
    outcome = job.run()
    assert f"{snapshot}: lctl snapshot_destroy {snapshot} failed with status 1" in outcome.message
    assert lustre.snapshots() == [snapshot]
    backed_up(job)
    nothing_left(job, lustre)


def test_one_that_was_destroyed_by_hand_is_forgotten(lustre: Simulated, job: Job) -> None:
    _, snapshot = paused(job, lustre)
    job.configure(snapshotter=None, lustre=None)
    lustre.ask("snapshot_umount", name=snapshot) if lustre.mounted() else None
    lustre.ask("snapshot_destroy", name=snapshot)
    backed_up(job)
    nothing_left(job, lustre)


def test_check_names_a_snapshot_that_no_run_needs_and_not_that_of_the_open_run(lustre: Simulated, job: Job) -> None:
    assert findings(job) == (0, [])
    lustre.ask("refuse", command="snapshot_destroy", status=1)
    job.run()
    (left,) = lustre.snapshots()
    code, (finding,) = findings(job)
    assert (code, finding["fatal"]) == (0, False)
    assert finding["what"] == f"the snapshot {left} is there, and no run needs it"
    assert finding["advice"] == "'lb run job' destroys it; where it cannot, it says why"
    shell(lustre.root, "mkdir more; for i in {1..30}; do echo > more/$i; done")
    paused(job, lustre)
    assert findings(job) == (0, [])


def test_check_says_why_snapshots_are_not_available(lustre: Simulated, make_job: MakeJob, tmp_path: Path) -> None:
    options = lustre.snapshotter()
    job = make_job(snapshotter="lustre", lustre=options)
    assert findings(job) == (0, [])
    assert not os.path.exists(options["folder"]), "nothing is made"
    lustre.ask("refuse", command="snapshot_list", status=1)
    code, (finding,) = findings(job)
    assert (code, finding["fatal"]) == (1, True)
    assert finding["what"].startswith("snapshots are not available: lctl snapshot_list failed with status 1")
    job.configure(lustre={**options, "mgs": ["/no/such"]})
    assert [one["what"] for one in findings(job)[1]] == [
        "snapshots are not available: '/no/such' cannot be run: No such file or directory"
    ]
    (tmp_path / "file").write_text("")
    more = {"folder": str(tmp_path / "file/snapshots"), "mount": ["mount.none"], "client": ["none"]}
    job.configure(lustre={**options, **more})
    code, found = findings(job)
    assert (code, [one["fatal"] for one in found]) == (1, [True, True, False])
    assert f"{tmp_path / 'file'} is no directory that can be written to" in found[0]["what"]
    assert "there is no program 'mount.none'" in found[1]["what"]
    assert "there is no program 'none'" in found[2]["what"]
    job.configure(lustre={**options, "device": ""})
    result = job.command("check")
    assert (result.exit_code, "is not mounted as Lustre on this node" in result.stdout) == (1, True)
    job.configure(snapshotter=None, lustre=None)
    assert findings(job) == (0, [])


@needs_root
def test_a_folder_that_nobody_can_write_to_is_found(tmp_path: Path) -> None:
    options = LustreOptions(device="here:/{}", folder=str(tmp_path / "run/lb"), client=("sh",), mount=("true",))
    assert list(check_mounting(options, b"/")) == []
    with mounted(os.fsencode(tmp_path)):
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        (finding,) = check_mounting(options, b"/")
    assert (finding.fatal, f"{tmp_path} is no directory" in finding.what) == (True, True)
