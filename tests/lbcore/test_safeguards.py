"""What holds a run back: the brake, a wrong source or target, a pause; and what a dry run says before it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from lbcore import brake, observing
from lbcore.apply import shards
from lbcore.catalog.catalog import Catalog
from lbcore.model import Delivered
from lbcore.progress import Progress
from lbcore.run import JobRun, Options, catalog_path
from lbcore.testing import MakeJob, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import write
from tests.support.commands import call, configuration
from tests.support.feed import Feed
from tests.support.feed import walk as walk_source
from tests.support.points import read_point
from tests.support.running import (
    PauseAt,
    UntilContent,
    backed_up,
    both_detectors,
    covered,
    mounted,
    needs_root,
    run_well,
)
from tests.support.source import at, move, put


def files(job: Job, count: int, folder: str = "d") -> None:
    put(job, *(f"{folder}/{number}" for number in range(count)))


def remove(job: Job, numbers: Iterable[int], folder: str = "d") -> None:
    for number in numbers:
        os.unlink(at(job, f"{folder}/{number}"))


@both_detectors
def test_a_run_that_would_remove_too_much_applies_nothing_until_it_is_approved(lb_job: MakeJob, detector: str) -> None:
    job = lb_job(Feed(), detector=detector, max_delete=5)
    files(job, 20)
    backed_up(job)
    before = read_tree(job.tree)
    remove(job, range(6))
    put(job, "new")
    for _ in range(2):
        outcome = job.run()
        assert (outcome.exit_code, outcome.state) == (6, "braked")
        assert "lb approve job" in outcome.message
        assert compare_trees(before, job.tree) == []
    with contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog:
        last = catalog.runs.last()
        assert last is not None
        brake.approve(catalog, last.removals)
    backed_up(job)
    remove(job, range(6, 12))
    assert job.run().exit_code == 6


def test_max_delete_of_the_command_line_counts_once(lb_job: MakeJob) -> None:
    job = lb_job(max_delete=5)
    files(job, 20)
    backed_up(job)
    remove(job, range(8))
    assert job.run(max_delete=7).exit_code == 6
    backed_up(job, max_delete="50%")
    remove(job, range(8, 16))
    assert job.run().exit_code == 6


def test_a_run_asked_to_stop_while_it_observes_does_so_at_once_and_the_next_one_observes_again(lb_job: MakeJob) -> None:
    job = lb_job()
    put(job, *(f"d{number}/file" for number in range(50)))
    asked = itertools.count()

    outcome = JobRun(job.config, job.plugins, Options(), Progress(), lambda: next(asked) >= 10).run()

    assert (outcome.exit_code, outcome.state) == (75, "paused")
    with contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog:
        assert catalog.plan.count() < 50
        assert [run.state for run in catalog.runs.all()] == ["observing"]
    assert os.listdir(job.tree) == []
    run_well(job)
    assert compare_trees(job.source, job.tree) == []


def test_a_mirror_that_is_gone_is_not_made_anew(lb_job: MakeJob) -> None:
    job = lb_job()
    put(job, "file")
    backed_up(job)
    os.rename(job.tree, job.tree + b"-elsewhere")
    for _ in range(2):
        outcome = job.run()
        assert (outcome.exit_code, outcome.state) == (1, "failed")
        assert "tree is gone" in outcome.message and "bring it back" in outcome.message
        assert not os.path.lexists(job.tree)
    os.rename(job.tree + b"-elsewhere", job.tree)
    backed_up(job)


def test_a_target_that_is_not_mounted_is_left_as_it_is(lb_job: MakeJob, tmp_path: Path) -> None:
    job = lb_job(state_dir=str(tmp_path / "state"))
    put(job, "file")
    backed_up(job)
    os.rename(job.target, job.target + b"-elsewhere")
    for mount_point in (False, True):
        if mount_point:
            os.mkdir(job.target)
        outcome = job.run()
        assert outcome.exit_code == 1
        assert "knows of one there: is it mounted?" in outcome.message
        assert os.path.lexists(job.target) == mount_point
    assert os.listdir(job.target) == []
    os.rmdir(job.target)
    os.rename(job.target + b"-elsewhere", job.target)
    backed_up(job)


@needs_root
def test_nothing_is_made_below_an_empty_mount_point(lb_job: MakeJob, tmp_path: Path) -> None:
    job = lb_job(Feed(), detector="feed")
    put(job, "file")
    os.mkdir(job.target)
    with mounted(job.target):
        job.configure(target_mount=os.fsdecode(job.target))
        backed_up(job)
    for command in (
        ["run"],
        ["run", "--dry-run"],
        ["collect"],
        ["ls"],
        ["verify"],
        ["restore", ".", "--to", str(tmp_path / "out")],
    ):
        result = job.command(*command)
        assert result.exit_code == 1
        assert f"nothing is mounted on {os.fsdecode(job.target)}, where the target" in result.output
    assert "nothing is mounted on" in job.command("check").stdout
    assert os.listdir(job.target) == []


def test_what_a_resumed_run_has_seen_is_no_plan_before_it_has_seen_all(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run paused in its content, resumed, and paused again while it observed: once for each place to stop at."""
    monkeypatch.setattr(observing, "_ROWS_TOGETHER", 1)
    for stop in itertools.count(2, 3):
        job = lb_job(name=f"stop-{stop}", max_delete="100%")
        put(job, *(f"a/{number}" for number in range(10)), *(f"b{number}/file" for number in range(6)))
        backed_up(job)
        first = read_tree(job.source)
        put(job, "new/one")
        progress = UntilContent()
        paused = JobRun(job.config, job.plugins, Options(), progress, lambda: progress.reached).run()  # noqa: B023
        assert paused.state == "paused"
        before = os.stat(at(job, "a/0"))
        for name, content in (("a/0", b"A/0"), ("a/1", b"longer")):
            write(at(job, "passing"), content)
            os.utime(at(job, "passing"), ns=(before.st_atime_ns, before.st_mtime_ns))
            move(job, "passing", name)
        put(job, "newer/two")
        shutil.rmtree(at(job, "b0"))
        asked = itertools.count()
        again = JobRun(job.config, job.plugins, Options(), Progress(), lambda: next(asked) >= stop).run()  # noqa: B023
        if again.state == "committed":
            break  # fewer places to stop at: how many depends on the inode numbers that the filesystem gives again
        assert again.state == "paused"

        backed_up(job)

        assert compare_trees(job.source, job.tree) == []
        assert compare_trees(first, read_point(job.target, 1)) == []
    assert stop > 5, "the places to stop at lie among the observations"


def test_a_slow_drain_is_seen_and_forgotten_after_seven_days(lb_job: MakeJob) -> None:
    job = lb_job(max_delete=5)
    files(job, 20)
    backed_up(job)
    for number in range(5):
        remove(job, [number])
        backed_up(job)
    remove(job, [5])
    outcome = job.run()
    assert (outcome.exit_code, "last 7 days" in outcome.message) == (6, True)
    with contextlib.closing(sqlite3.connect(os.fsdecode(job.lb + b"/job.db"))) as database, database:
        database.execute("UPDATE run SET finished_ns = finished_ns - ?", (8 * 86_400 * 10**9,))
    backed_up(job)


def test_another_directory_or_none_in_the_place_of_the_source_is_refused(lb_job: MakeJob) -> None:
    job = lb_job()
    put(job, "a", "b")
    backed_up(job)
    before = read_tree(job.tree)
    os.rename(job.source, job.source + b".away")
    outcome = job.run()
    assert (outcome.exit_code, "cannot be read" in outcome.message) == (1, True)
    os.mkdir(job.source)
    outcome = job.run()
    assert (outcome.exit_code, "is not the directory" in outcome.message) == (1, True)
    assert compare_trees(before, job.tree) == []
    os.rmdir(job.source)
    os.rename(job.source + b".away", job.source)
    backed_up(job)


@needs_root
def test_a_source_that_is_not_mounted_is_not_an_empty_one(lb_job: MakeJob) -> None:
    job = lb_job()
    with mounted(job.source):
        put(job, "a", "b")
        backed_up(job)
    outcome = job.run()
    assert (outcome.exit_code, "mounted" in outcome.message) == (1, True)
    assert covered(job) == [b"a", b"b"]


def test_a_gap_of_the_feed_leads_to_a_scan_however_many_runs_it_takes(lb_job: MakeJob) -> None:
    feed = Feed()
    job = lb_job(feed, detector="feed", max_delete=5)
    files(job, 20)
    backed_up(job)
    put(job, "unnoticed")
    remove(job, range(10))
    feed.states = {key: walk_source(job.source) for key in feed.states}  # the feed has lost what happened since
    feed.gap = "records are missing"
    assert job.run().exit_code == 6
    assert job.run(max_delete="100%").exit_code == 5
    assert job.differences() == []
    assert job.run().exit_code == 0


def whole(path: bytes) -> dict[bytes, Any]:
    """Everything below a folder, with contents and times."""
    found: dict[bytes, Any] = {}
    for folder, _, names in os.walk(path):
        found[folder] = os.lstat(folder).st_mtime_ns
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.join(folder, name)] = file.read()
    return found


def test_a_dry_run_tells_what_would_be_done_and_changes_nothing(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%")
    put(job, "a", "d/b", "d/c")
    assert job.plan() == {"objects_new": 5, "objects_changed": 0, "objects_removed": 0}
    assert not os.path.exists(job.target)
    backed_up(job)
    shutil.rmtree(at(job, "d"))
    put(job, "new")
    before = whole(job.target)
    plan = job.plan()
    assert (plan["objects_new"], plan["objects_removed"]) == (1, 3)
    after = whole(job.target)
    for found in (before, after):  # the database's side files come and go with whoever opens it
        for path in [path for path in found if path.endswith((b"/.lb", b"-wal", b"-shm", b"/lock"))]:
            del found[path]
    assert after == before
    assert backed_up(job).counts.items() >= plan.items()


def test_a_dry_run_of_a_full_run_looks_at_every_name(lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job = lb_job()
    put(job, "d/a", "d/b")
    monkeypatch.setattr("lbcore.builtin.scan._RACY_SECONDS", -1000)
    backed_up(job)
    with contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog, catalog.database.transaction():
        catalog.database.execute("DELETE FROM name WHERE name = ?", (b"b",))  # a fault that no fingerprint shows
    counts = []
    for options in ([], ["--full"]):
        shown = call(configuration(job), "run", "--dry-run", "--json", *options)
        (planned,) = json.loads(shown.stdout)["jobs"]
        counts.append(planned["objects_changed"])
    assert counts == [0, 1]


def test_a_dry_run_tells_of_the_brake(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="25%")
    put(job, "a", "b", "c")
    backed_up(job)
    os.unlink(at(job, "a"))
    os.unlink(at(job, "b"))
    config = configuration(job, more='max_delete = "25%"')
    shown = call(config, "run", "--dry-run")
    assert shown.exit_code == 0
    assert "the brake would stop it: this run would remove 2 of 4 objects, more than max_delete (25%)" in shown.stdout
    assert "brake" not in call(config, "run", "--dry-run", "--max-delete", "2").stdout
    (planned,) = json.loads(call(config, "run", "--dry-run", "--json").stdout)["jobs"]
    assert planned["brake"].startswith("this run would remove 2")


def test_a_dry_run_that_cannot_be_says_so_and_goes_on_with_the_next_job(lb_job: MakeJob) -> None:
    good, bad = lb_job(name="good"), lb_job(name="bad")
    put(good, "a")
    config = configuration(good, bad)
    shutil.rmtree(bad.source)

    shown = call(config, "run", "--dry-run", "--json", "bad", "good")

    assert shown.exit_code == 1
    failed, planned = json.loads(shown.stdout)["jobs"]
    assert (failed["job"], failed["state"], failed["exit_code"]) == ("bad", "failed", 1)
    assert (planned["job"], planned["state"], planned["exit_code"]) == ("good", "planned", 0)
    assert f"bad: {failed['message']}" in shown.stderr


def test_what_somebody_put_into_the_mirror_is_set_aside(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%")
    put(job, "d/a", "e/f", "g")
    backed_up(job)
    write(job.tree + b"/new", b"foreign 1")
    os.mkdir(job.tree + b"/moved")
    write(job.tree + b"/moved/x", b"foreign 2")
    write(job.tree + b"/d/x", b"foreign 3")
    os.unlink(job.tree + b"/g")
    os.mkdir(job.tree + b"/g")
    write(job.tree + b"/g/x", b"foreign 4")
    put(job, "new", "g")
    move(job, "e/f", "moved")
    shutil.rmtree(at(job, "d"))
    backed_up(job)
    contents = set()
    for folder, _, names in os.walk(job.lb + b"/strays"):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                contents.add(file.read())
    assert contents == {b"foreign 1", b"foreign 2", b"foreign 3", b"foreign 4"}


Deliver = Callable[[shards.DeliverShard], shards.Deliveries]


@pytest.mark.parametrize("transfer", ["copy", "rsync"])
def test_a_run_paused_anywhere_goes_on_with_a_source_that_has_changed_again(lb_job: MakeJob, transfer: str) -> None:
    """What the first attempt has delivered is not taken for what the second one delivers."""
    for place in itertools.count(1):
        job = lb_job(name=f"pause-{place}", transfer=[transfer], max_delete="100%", racy_seconds=0)
        put(job, *(f"d/{number}" for number in range(4)), "gone")
        os.link(at(job, "d/3"), at(job, "linked"))
        backed_up(job)
        first = read_tree(job.source)
        for name in ("d/0", "d/1", "d/3"):
            write(at(job, name), b"second " + os.fsencode(name))
        put(job, "new/one")
        os.unlink(at(job, "gone"))
        paused = JobRun(job.config, job.plugins, Options(), Progress(), PauseAt(place)).run()
        if paused.state == "committed":
            break
        for name in ("d/1", "d/2", "d/3", "new/one"):
            write(at(job, name), b"the third " + os.fsencode(name))
        put(job, "new/two")

        outcome = backed_up(job)

        assert outcome.run == paused.run
        assert compare_trees(first, read_point(job.target, 1)) == []
        assert call(configuration(job), "verify").exit_code == 0
        write(at(job, "d/1"), b"fourth")
        now = read_point(job.target, outcome.run)
        backed_up(job)
        assert compare_trees(now, read_point(job.target, outcome.run)) == []
    assert place > 4, "there are places to pause at"


def test_content_that_disappears_from_the_stage_fails_the_run(lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in (False, True):
        job = lb_job(name=f"job-{known}", racy_seconds=0)
        put(job, "file", "other")
        if known:
            backed_up(job)
            write(at(job, "file"), b"second")
        os.link(at(job, "file"), at(job, "linked"))  # two names: it is not set in place by the worker
        real = shards.deliver

        def deliver(shard: shards.DeliverShard, real: Deliver = real) -> shards.Deliveries:
            deliveries = real(shard)
            for folder, placed, result in deliveries.results:
                if not placed and isinstance(result, Delivered):
                    os.unlink(os.path.join(shard.lb, folder, result.path))
            return deliveries

        with monkeypatch.context() as patch:
            patch.setattr(shards, "deliver", deliver)
            patch.setattr(shards, "_place", lambda *_: set())
            outcome = job.run()
        assert outcome.exit_code == 1
        assert "is gone: something else removes files there" in outcome.message
        # A file that was to be replaced had been marked as delivered: that is damage, and mended in the same run.
        assert job.run().exit_code == (4 if known else 0)
        backed_up(job)
