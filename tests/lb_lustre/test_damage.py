"""What may happen to a metadata server and its changelog, and a run is right all the same."""

from __future__ import annotations

import os
import types
from pathlib import Path

import pytest

from lb_lustre import feed
from lb_lustre.record import decode
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_simulated import CHANGE, SETUP, MakeJob, backed_up, seen, settle, shell

MORE = "for i in 1 2 3 4 5 6; do echo $i > file-$i; mkdir dir-$i; done; echo more >> a/one"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long a hole was waited for; in fact for no time."""
    slept: list[float] = []
    monkeypatch.setattr(feed, "time", types.SimpleNamespace(sleep=slept.append))
    return slept


def test_a_record_that_is_written_after_a_later_one_is_waited_for(
    lustre: Simulated, make_job: MakeJob, waits: list[float]
) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    shell(lustre.root, MORE)
    for mdt, last in enumerate(lustre.last()):
        lustre.ask("damage", mdt=mdt, what="delay", index=last - 1)
    outcome = backed_up(job)
    assert len(waits) == 2
    with job.catalog() as catalog:
        run = catalog.runs.get(outcome.run)
        assert run is not None and run.gap is None


@pytest.mark.parametrize("records", [0, 3])
def test_a_changelog_that_breaks_off_fails_the_run_and_the_next_one_misses_nothing(
    lustre: Simulated, make_job: MakeJob, records: int
) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    shell(lustre.root, MORE)
    lustre.ask("damage", mdt=1, what="break_off", after=lustre.cleared()[1] + records)
    outcome = job.run()
    assert outcome.exit_code not in (0, 5), outcome
    assert "MDT0001" in outcome.message and "could not be read on after index" in outcome.message
    shell(lustre.root, CHANGE)
    outcome = backed_up(job)
    with job.catalog() as catalog:
        run = catalog.runs.get(outcome.run)
        assert run is not None and run.gap is None


def test_a_read_without_room_for_a_record_gives_nothing_and_loses_nothing(lustre: Simulated) -> None:
    lustre.register()
    os.mkdir(lustre.root / "directory")
    device = next(path for path in sorted(lustre.devices.iterdir()) if lustre.last()[int(path.name[-4:], 16)])
    descriptor = os.open(device, os.O_RDONLY)
    try:
        assert os.read(descriptor, 60) == b""
        (record,) = decode(os.read(descriptor, 4096))
    finally:
        os.close(descriptor)
    assert record.name == b"directory"


def test_a_server_that_gives_one_record_at_a_time_is_read_to_the_end(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    for mdt in (0, 1):
        lustre.ask("damage", mdt=mdt, what="dribble", most_bytes=512)
    shell(lustre.root, MORE)
    backed_up(job)
    shell(lustre.root, CHANGE)
    backed_up(job)


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_servers_whose_clocks_differ_are_followed(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    settle(monkeypatch)
    job = make_job(racy_seconds=120)
    shell(lustre.root, SETUP)
    backed_up(job)
    lustre.ask("damage", mdt=0, what="skew", seconds=seconds)
    for script in (MORE, CHANGE, "mv dir-1 dir-2/; rm file-2; ln file-3 dir-2/dir-1/link; echo again > file-4"):
        shell(lustre.root, script)
        backed_up(job)


def test_children_whose_link_eas_name_a_directory_by_its_old_fid_are_kept(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    for path in ("a", "a/b"):
        lustre.ask("migrate", path=path, mdt=1, stale=True)
    shell(
        lustre.root, "chmod 600 a/one; echo more >> a/b/two; mv a/sparse c/; rm a/pipe; mkdir a/new; echo new > a/b/new"
    )
    outcome = job.run()
    assert (outcome.exit_code, outcome.state) == (3, "committed"), "each is named, and nothing is taken for gone"
    assert {"a/one", "a/b/two", "a/symlink"} <= {os.fsdecode(path) for path in seen(job.tree)}
    backed_up(job, full=True)


def test_a_tree_that_lfs_migrates_is_followed(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    shell(lustre.root, "lfs migrate -m 1 a; lfs migrate -m 0,1 -c 2 c; echo more >> a/b/two; mv a/one c/one")
    outcome = backed_up(job)
    assert outcome.counts["files_copied"] == 1
    assert backed_up(job, full=True).counts.get("objects_changed", 0) == 0


def test_contents_that_are_exchanged_are_both_copied(lustre: Simulated, make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job()
    shell(lustre.root, f"{SETUP}\necho eno > other; touch -r a/one other")
    backed_up(job)
    shell(lustre.root, "lfs swap_layouts a/one other")
    assert (lustre.root / "a/one").read_text() == "eno\n"
    backed_up(job)
