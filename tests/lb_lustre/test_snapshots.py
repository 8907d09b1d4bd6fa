"""Backups of a simulated Lustre through its snapshots: what a run reads, keeps, and leaves."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from lb_lustre import feed, fid, snapshots
from lb_lustre.changelog import Changelog
from lb_lustre.snapshots import LustreSnapshots
from lbcore import _posix, collecting, epoch
from lbcore.catalog.catalog import Catalog
from lbcore.observing import Observing
from lbcore.plugins.types import Source
from lbcore.progress import Progress
from lbcore.run import JobRun, Options, Outcome, catalog_path
from lbcore.snapshots import Snapshots
from lbcore.testing import Tree, compare_trees
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_simulated import CHANGE, SETUP, seen, settle, shell
from tests.support.running import PauseAt

MakeJob = Callable[..., Job]


@pytest.fixture
def job(lustre: Simulated, make_job: MakeJob) -> Job:
    """A job that reads snapshots."""
    shell(lustre.root, SETUP)
    return make_job(snapshotter="lustre", lustre=lustre.snapshotter())


def backed_up(job: Job, tree: Tree | None = None, *, status: int = 0) -> Outcome:
    """A run that brings the backup to a state: by default to that of the source now."""
    outcome = job.run()
    assert (outcome.exit_code, outcome.state, outcome.message) == (status, "committed", ""), outcome
    assert compare_trees(seen(job.source) if tree is None else tree, seen(job.tree)) == []
    return outcome


def nothing_left(lustre: Simulated) -> None:
    assert (lustre.snapshots(), lustre.mounted()) == ([], [])


def changing(lustre: Simulated, monkeypatch: pytest.MonkeyPatch, script: str) -> dict[str, Tree]:
    """The source changes right after the snapshot was made; gives what it was then, once it is made."""
    then: dict[str, Tree] = {}
    real = LustreSnapshots.create

    def create(self: LustreSnapshots, path: bytes, name: str) -> None:
        real(self, path, name)
        then[name] = seen(path)
        shell(lustre.root, script)

    monkeypatch.setattr(LustreSnapshots, "create", create)
    return then


def test_the_backup_is_the_snapshot_whatever_happens_after_it(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(job)
    for script in (CHANGE, "mv d e; rm a/two; echo 1 > a/late", "rm -r e; mkdir e; echo 2 > e/x; mv a/late e/"):
        with monkeypatch.context() as patch:
            then = changing(lustre, patch, script)
            outcome = job.run()
        assert (outcome.exit_code, outcome.message) == (0, "")
        (tree,) = then.values()
        assert compare_trees(tree, seen(job.tree)) == []
        nothing_left(lustre)
    backed_up(job)
    nothing_left(lustre)


def test_a_job_of_a_subdirectory_reads_it_in_the_snapshot(lustre: Simulated, make_job: MakeJob) -> None:
    shell(lustre.root, "mkdir -p deep/inside; echo 1 > deep/inside/file; echo 2 > deep/outside")
    job = make_job("deep/inside", snapshotter="lustre", lustre=lustre.snapshotter())
    backed_up(job)
    shell(lustre.root, "mv deep/outside deep/inside/; mv deep/inside/file deep/; mkdir deep/inside/d")
    backed_up(job)


def test_a_point_in_time_is_the_time_of_its_snapshot(lustre: Simulated, job: Job) -> None:
    paused_at(job, 4)
    with job.catalog() as catalog:
        paused = catalog.runs.open()
    outcome = backed_up(job)
    with job.catalog() as catalog:
        run = catalog.runs.get(outcome.run)
    assert paused is not None and run is not None and paused.view_from_ns is not None
    assert (run.run, run.resumed, run.view_from_ns, run.view_to_ns) == (
        paused.run, 1, paused.view_from_ns, paused.view_to_ns,
    )  # fmt: skip


# ── What clients send late ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("detector", ["changelog", "scan"])
def test_what_clients_had_not_sent_is_brought_by_the_next_run(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch, detector: str
) -> None:
    settle(monkeypatch)
    monkeypatch.setattr(Changelog, "flush", lambda self, source, hints: {})
    job.configure(racy_seconds=3600, detector=detector, **({"changelog": None} if detector == "scan" else {}))
    backed_up(job)
    lustre.ask("late", late=True)
    shell(lustre.root, "echo new > new; echo more >> a/one; printf 'ONE' | dd of=a/b/two conv=notrunc status=none")
    real = seen(lustre.root)
    for _ in range(3):  # the servers may have forgotten their last record by then
        assert job.run().exit_code == 0
    with job.catalog() as catalog:
        last = catalog.runs.last()
        assert last is not None and bool(last.cut_ns) == (detector == "changelog")
    stale = seen(job.tree)
    assert (stale[b"new"].size, stale[b"a/one"].size, stale[b"a/b/two"].size) == (0, 4, 4)
    assert stale[b"a/b/two"].content != real[b"a/b/two"].content
    recorded = lustre.last()
    flush_all(lustre)
    assert lustre.last() == recorded, "no record tells of it"
    backed_up(job, real)


def test_what_clients_had_not_sent_is_known_however_long_the_run_was_interrupted(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    job.configure(racy_seconds=3600, detector="scan", changelog=None)
    backed_up(job)
    lustre.ask("late", late=True)
    shell(lustre.root, "printf 'ONE' | dd of=a/b/two conv=notrunc status=none")
    real = seen(lustre.root)
    paused_at(job, 1)
    now_ns = time.time_ns
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now_ns() + 86_400 * 10**9)
        assert job.run().exit_code == 0
    flush_all(lustre)
    backed_up(job, real)


def test_what_recent_writers_were_made_to_send_is_in_the_snapshot(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    job.configure(racy_seconds=3600)
    backed_up(job)
    lustre.ask("late", late=True)
    shell(lustre.root, "echo new > new; echo more >> a/one")
    outcome = backed_up(job)
    assert outcome.counts["flush_flushed"] >= 2
    assert "flush_failed" not in outcome.counts
    assert f"flush_flushed={outcome.counts['flush_flushed']}" in job.log(outcome.run)


def flush_all(lustre: Simulated) -> None:
    """Every client sends what was written to every file."""
    for folder, _, names in os.walk(lustre.root):
        for name in names:
            with contextlib.suppress(OSError):
                os.getxattr(os.path.join(folder, name), "trusted.simulated.flushed_version", follow_symlinks=False)


# ── Runs that are cut short ───────────────────────────────────────────────────────────────────────────────────────────


def paused_at(job: Job, place: int) -> Outcome:
    """A run that is asked to pause at one of the places where it can."""
    outcome = JobRun(job.config, job.plugins, Options(), Progress(), PauseAt(place)).run()
    assert outcome.exit_code == 75, outcome
    return outcome


def test_an_open_run_keeps_its_snapshot_over_pauses_and_brings_what_came_later_with_the_next(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    backed_up(job)
    shell(lustre.root, CHANGE)
    then = seen(lustre.root)
    run = paused_at(job, 4).run
    (kept,) = lustre.snapshots()
    assert kept.startswith("lb-job-") and kept.endswith(f"-{run}")
    assert lustre.mounted() == []
    shell(lustre.root, "mv d e; echo late > late; rm a/two; echo again >> e/b/two")
    for place in (9, 12):
        assert paused_at(job, place).run == run
        assert lustre.snapshots() == [kept]
    assert backed_up(job, then).run == run
    nothing_left(lustre)
    backed_up(job)


def test_a_run_whose_snapshot_is_lost_collects_again_and_takes_another(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    backed_up(job)
    shell(lustre.root, CHANGE)
    run = paused_at(job, 9).run
    lustre.ask("snapshot_destroy", name=lustre.snapshots()[0])
    shell(lustre.root, "mv d e; echo late > late; rm a/two")
    assert backed_up(job).run == run
    nothing_left(lustre)


def collect_meanwhile(job: Job) -> None:
    """What a collection does that runs alone while a run is open."""
    detector = job.config.detector.registration.create(job.config.detector.options)
    with contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog:
        collecting.collect(catalog, detector, Source(job=job.name, path=job.source))


def test_what_is_collected_while_a_run_is_open_is_left_to_the_next(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    backed_up(job)
    shell(lustre.root, CHANGE)
    then = seen(lustre.root)
    paused_at(job, 6)
    shell(lustre.root, "mv d e; echo late > late; rm a/two; echo again >> e/b/two; echo more >> a/one")
    for _ in range(3):
        collect_meanwhile(job)
    assert lustre.cleared() == lustre.last()
    backed_up(job, then)
    backed_up(job)


def test_a_gap_that_is_found_while_a_run_scans_is_left_to_the_next(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    monkeypatch.setattr(feed, "_HOLE_SECONDS", 0)
    paused_at(job, 4)
    shell(lustre.root, "for i in 1 2 3 4 5 6 7 8 9; do echo $i > late$i; done")
    collect_meanwhile(job)
    for mdt, last in enumerate(lustre.last()):
        lustre.ask("damage", mdt=mdt, what="lose", first=last - 4, last=last - 3)
    shell(lustre.root, "rm late1; echo last > late10")
    collect_meanwhile(job)
    assert job.run().state == "committed"
    backed_up(job, status=5)
    backed_up(job)


def test_a_snapshot_is_collected_up_to_its_own_cut_and_nothing_is_forgotten_by_that(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    detector = job.config.detector.registration.create(job.config.detector.options)
    snapshotter = job.config.snapshotter.registration.create(job.config.snapshotter.options)
    source = Source(job=job.name, path=job.source)
    first = detector.collect(source, None)
    shell(lustre.root, "echo before > before")
    snapshotter.create(job.source, "lb-x-1")
    made_ns = time.time_ns()
    shell(lustre.root, "echo after > after; rm before")
    cleared, last = lustre.cleared(), lustre.last()
    with snapshotter.mount(job.source, "lb-x-1") as view:
        found = detector.collect(source, first.cursor, view)
        live = detector.collect(source, first.cursor)
        read = {hint.id for hint in found.hints}
        assert fid.parse(lustre.ask("fid_of", path="after")) not in read
        assert fid.parse(lustre.ask("fid_of", path="after")) in {hint.id for hint in live.hints}
        assert stat_fid(view.root + b"/before") in read
    assert (found.cursor, found.gap) == (first.cursor, None)
    assert first.cut_ns < found.cut_ns < made_ns < live.cut_ns
    assert (lustre.cleared(), lustre.last()) == (cleared, last)
    snapshotter.destroy(job.source, "lb-x-1")


def stat_fid(path: bytes) -> bytes:
    """The FID of what is at a path."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        object_id: bytes = _posix.look(folder, os.path.basename(path))[0]
        return object_id
    finally:
        os.close(folder)


def test_only_what_this_job_left_is_cleared_away(lustre: Simulated, job: Job) -> None:
    backed_up(job)
    with job.catalog() as catalog:
        mine = f"lb-job-{epoch.name(catalog)[:8]}-"
    of_a_copy = mine.replace("-job-", "-other-") + "1"
    foreign = ["S1", "lb-job-01234567-1", "lb-other-01234567-1", f"{mine}old", mine + "7.1", of_a_copy]
    for name in [*foreign, f"{mine}1", f"{mine}99"]:
        lustre.ask("snapshot_create", name=name)
    mounted_here = lustre.folder / "snapshots" / f"{mine}1"  # as by a run that was killed
    mounted_here.mkdir(parents=True)
    filesystem = lustre.ask("snapshot_mount", name=f"{mine}1")
    subprocess.run(["mount", "--bind", lustre.folder / "mount/fs" / filesystem, mounted_here], check=True)
    backed_up(job)
    assert sorted(lustre.snapshots()) == sorted(foreign)
    assert (lustre.mounted(), list(mounted_here.parent.iterdir())) == ([], [])


def test_a_snapshot_that_cannot_be_destroyed_keeps_no_run_from_its_work(lustre: Simulated, job: Job) -> None:
    lustre.ask("refuse", command="snapshot_destroy", status=1)
    outcome = job.run()
    assert (outcome.exit_code, outcome.state) == (0, "committed")
    assert "could not be destroyed, the next run tries again: lb-job-" in outcome.message
    assert len(lustre.snapshots()) == 1
    shell(lustre.root, CHANGE)
    backed_up(job)
    nothing_left(lustre)


def test_a_run_that_the_brake_stops_leaves_no_snapshot(lustre: Simulated, job: Job) -> None:
    backed_up(job)
    job.configure(max_delete=1)
    shell(lustre.root, "rm -r a")
    assert job.run().exit_code == 6
    nothing_left(lustre)
    assert job.run(max_delete=100).exit_code == 0
    assert compare_trees(seen(job.source), seen(job.tree)) == []


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("snapshot_list", 1, "lctl snapshot_list failed with status 1"),
        ("snapshot_create", 110, "the barrier lapsed before every server had made its part; raise 'barrier_seconds'"),
        ("snapshot_create", 255, "is the MGS reachable"),
        ("snapshot_mount", 22, "if a part of it is gone, destroy it with lctl snapshot_destroy -f"),
    ],
)
def test_a_command_that_fails_stops_the_run_and_loses_nothing(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch, command: str, status: int, said: str
) -> None:
    settle(monkeypatch)
    backed_up(job)
    shell(lustre.root, CHANGE)
    job.configure(lustre={**lustre.snapshotter(), "retries": 0})
    lustre.ask("refuse", command=command, status=status)
    then = seen(lustre.root)
    outcome = job.run()
    assert (outcome.exit_code, said in outcome.message) == (1, True), outcome
    shell(lustre.root, "mv d e; echo late > late")
    assert backed_up(job, then if lustre.snapshots() else None).run == outcome.run
    backed_up(job)
    nothing_left(lustre)


def test_what_is_refused_for_the_time_being_is_tried_again(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_PAUSE_SECONDS", 0)
    for command, status in (("snapshot_create", 110), ("snapshot_mount", 16), ("snapshot_umount", 11)):
        lustre.ask("refuse", command=command, status=status)
    backed_up(job)
    nothing_left(lustre)


PLACES = (
    (collecting, "collect"), (collecting, "flush"), (collecting, "collect_again"), (Snapshots, "take"),
    (Snapshots, "keep"), (Snapshots, "clear"), (LustreSnapshots, "create"), (LustreSnapshots, "list"),
    (LustreSnapshots, "destroy"), (LustreSnapshots, "_mount_client"), (LustreSnapshots, "_release"),
    (Changelog, "collect"), (Changelog, "acknowledge"), (Changelog, "flush"), (Observing, "plan"),
    (JobRun, "_finish"),
)  # fmt: skip


@pytest.mark.sweep
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[f"{one.__name__}.{name}" for one, name in PLACES])
def test_a_run_that_ends_at_any_place_is_completed_and_leaks_no_snapshot(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: bool
) -> None:
    settle(monkeypatch)
    backed_up(job)
    shell(lustre.root, CHANGE)
    real = getattr(owner, name)

    def cut(*arguments: Any, **more: Any) -> Any:
        if after:
            real(*arguments, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, cut)
        with pytest.raises(KeyboardInterrupt):
            job.run()
    shell(lustre.root, "mv d e; echo late > late; echo again >> e/b/two")
    job.run()
    backed_up(job)
    nothing_left(lustre)
