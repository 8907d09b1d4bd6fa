"""Random trees and random changes: the backup equals the source, and every earlier point in time stays what it was.

``pytest --hypothesis-profile=deep tests/lbcore/test_model.py`` looks much longer.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore import hookimpl, observing
from lbcore.apply import arriving, finish, lift, place, waiting
from lbcore.builtin.scan import Scan
from lbcore.model import Hint, Seen, View
from lbcore.plugins.types import DetectorPlugin, Known
from lbcore.progress import Progress
from lbcore.run import JobRun, Options
from lbcore.scope import Scope
from lbcore.target import Target
from lbcore.testing import Tree, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import KINDS, Change, Changer
from tests.support.feed import Feed
from tests.support.points import read_point
from tests.support.running import PauseAt

pytestmark = pytest.mark.sweep

MEMORY = "/dev/shm"
"""Most of it happens here: on a disk, most of the time goes into making things durable."""
EXAMPLES = settings.default.max_examples if settings.default else 100

NUMBERS = st.integers(min_value=0, max_value=40)
CHANGES = st.lists(st.builds(Change, st.sampled_from(sorted(KINDS)), NUMBERS, NUMBERS, NUMBERS), max_size=12)
ROUNDS = st.lists(CHANGES, min_size=1, max_size=5)
"""A run follows each list of changes."""

STANDARD = [
    Change(*change)
    for change in [
        ("mkdir", 0, 0, 0),
        ("mkdir", 0, 2, 0),
        ("mkdir", 1, 1, 0),
        ("mkdir", 2, 2, 0),
        ("create", 0, 3, 1),
        ("create", 1, 2, 2),
        ("create", 2, 3, 3),
        ("create", 3, 4, 4),
        ("link", 0, 2, 4),
        ("symlink", 2, 5, 1),
        ("fifo", 3, 5, 0),
    ]
]

MakeAJob = Callable[..., Job]


def scan_job(folder: bytes, **more: Any) -> Job:
    return Job(folder, max_delete="100%", **more)


def feed_job(folder: bytes, **more: Any) -> Job:
    return Job(folder, Feed(), detector="feed", max_delete="100%", **more)


def shuffled_feed_job(folder: bytes, **more: Any) -> Job:
    return Job(folder, Feed(seed=7), detector="feed", max_delete="100%", **more)


def sparse_feed_job(folder: bytes, **more: Any) -> Job:
    return Job(folder, Feed(seed=8, sparse=True), detector="feed", max_delete="100%", **more)


JOBS = [scan_job, feed_job, shuffled_feed_job, sparse_feed_job]


@contextlib.contextmanager
def empty_folder(*, memory: bool) -> Iterator[bytes]:
    there = memory and os.access(MEMORY, os.W_OK)
    with tempfile.TemporaryDirectory(dir=MEMORY if there else None) as folder:
        yield os.fsencode(folder)


def changers(source: bytes, rounds: list[list[Change]], *, standard: bool) -> Iterator[Tree]:
    """Make each round of changes; the source after it."""
    changer = Changer(source, source + b"-outside")
    for changes in [STANDARD, *rounds] if standard else rounds:
        for change in changes:
            changer.make(change)
        yield read_tree(source)


def assert_equal(original: Tree | bytes, copy: Tree | bytes, note: str = "") -> None:
    differences = compare_trees(original, copy)
    assert not differences, "\n".join([note, *differences])


def run_well(job: Job) -> int:
    outcome = job.run()
    assert (outcome.exit_code, outcome.message, outcome.problems) == (0, "", 0)
    return outcome.run


def rows_of(job: Job, run: int) -> int:
    """How many rows of the catalog began or ended with a run."""
    with job.catalog() as catalog:
        return sum(
            int(catalog.database.value(f"SELECT count(*) FROM {table} WHERE {column} = ?", (number,)))
            for table in ("object", "name")
            for table, column, number in ((table, "first_run", run), (f"{table}_past", "last_run", run - 1))
        )


@pytest.mark.parametrize("make_job", JOBS)
@given(rounds=ROUNDS, standard=st.booleans())
@settings(deadline=None, max_examples=EXAMPLES // 2)
def test_the_backup_equals_the_source_after_each_run_and_every_point_in_time_stays_what_it_was(
    make_job: MakeAJob, rounds: list[list[Change]], standard: bool
) -> None:
    with empty_folder(memory=True) as folder:
        job = make_job(folder)
        points: dict[int, Tree] = {}
        for source in changers(job.source, rounds, standard=standard):
            points[run_well(job)] = source
            assert_equal(source, job.tree)
        run = run_well(job)  # nothing has changed
        assert rows_of(job, run) == 0
        points[run] = source
        for number, source in points.items():
            assert_equal(source, read_point(job.target, number), f"run {number}")
        job.restore(number - 1, job.source + b"-restored")
        assert_equal(points.get(number - 1, source), job.source + b"-restored")


@pytest.mark.parametrize("make_job", [scan_job, sparse_feed_job])
@given(rounds=ROUNDS)
@settings(deadline=None, max_examples=EXAMPLES // 8)
def test_the_same_holds_on_a_disk_where_numbers_of_inodes_are_used_again(
    make_job: MakeAJob, rounds: list[list[Change]]
) -> None:
    with empty_folder(memory=False) as folder:
        job = make_job(folder)
        points: dict[int, Tree] = {}
        for source in changers(job.source, rounds, standard=True):
            points[run_well(job)] = source
            assert_equal(source, job.tree)
        for number, source in points.items():
            assert_equal(source, read_point(job.target, number), f"run {number}")


# -- runs that are cut short, and a source that goes on meanwhile ------------------------------------------------------


@contextlib.contextmanager
def small_batches() -> Iterator[None]:
    """Little data that takes many batches and shards."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (lift, place, finish):
            patch.setattr(module, "BATCH_STEPS", 3)
        patch.setattr(arriving, "_BATCH_FILES", 2)
        patch.setattr(arriving, "_BATCH_NEW_FILES", 2)
        patch.setattr(waiting, "_SHARD_FILES", 2)
        patch.setattr(observing, "_ROWS_TOGETHER", 5)
        yield


def run_that_fails(job: Job, syncs: int) -> None:
    """A run whose disk fails at the moment when it waits for it, after so many times."""
    waited = itertools.count()

    def sync(target: Target, real: Callable[[Target], None] = Target.sync) -> None:
        if next(waited) >= syncs:
            raise OSError(errno.EIO, "the disk fails")
        real(target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Target, "sync", sync)
        assert job.run().exit_code in (0, 1)


def run_that_is_paused(job: Job, place: int) -> None:
    outcome = JobRun(job.config, job.plugins, Options(), Progress(), PauseAt(place)).run()
    assert outcome.exit_code in (0, 75), outcome


CUTS = st.tuples(st.sampled_from([run_that_fails, run_that_is_paused]), st.integers(0, 30), CHANGES)


@pytest.mark.parametrize("make_job", [scan_job, shuffled_feed_job])
@given(rounds=st.lists(st.tuples(CHANGES, st.lists(CUTS, max_size=3)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=EXAMPLES // 6)
def test_runs_that_are_cut_short_go_on_with_whatever_the_source_is_by_then(
    make_job: MakeAJob, rounds: list[tuple[list[Change], list[tuple[Callable[[Job, int], None], int, list[Change]]]]]
) -> None:
    with empty_folder(memory=True) as folder, small_batches():
        job = make_job(folder, transfer=["copy"], racy_seconds=0)
        changer = Changer(job.source, job.source + b"-outside")
        for change in STANDARD:
            changer.make(change)
        points: dict[int, Tree] = {}
        for before, cuts in rounds:
            for change in before:
                changer.make(change)
            for cut_short, when, meanwhile in cuts:
                cut_short(job, when)
                for change in meanwhile:
                    changer.make(change)
            run_well(job)  # one that had applied everything is only committed: it holds what the source was then
            source = read_tree(job.source)
            points[run_well(job)] = source
            assert_equal(source, job.tree)
            assert not os.path.lexists(job.lb + b"/strays")
        for number, source in points.items():
            assert_equal(source, read_point(job.target, number), f"run {number}")


# -- what the patterns of a job cover -----------------------------------------------------------------------------


def covered(tree: Tree) -> Tree:
    """What the patterns below leave."""
    kept = {
        path: node
        for path, node in tree.items()
        if b"run1" not in path.split(b"/") and path != b"a/b" and not path.startswith(b"a/b/")
    }
    for path, node in kept.items():
        links = tuple(link for link in node.links if link in kept)
        kept[path] = replace(node, links=links if len(links) > 1 else ())
    return kept


@pytest.mark.parametrize("make_job", [scan_job, sparse_feed_job])
@given(rounds=ROUNDS, standard=st.booleans())
@settings(deadline=None, max_examples=EXAMPLES // 3)
def test_the_backup_equals_the_covered_part_of_the_source_whatever_moves_in_and_out_of_it(
    make_job: MakeAJob, rounds: list[list[Change]], standard: bool
) -> None:
    with empty_folder(memory=True) as folder:
        job = make_job(folder, exclude=["run1", "/a/b"])
        for source in changers(job.source, rounds, standard=standard):
            run_well(job)
            assert_equal(covered(source), job.tree)


# -- metamorphic --------------------------------------------------------------------------------------------------


def facts(job: Job, *, times: bool) -> list[Any]:
    """All the catalog knows of objects and names, whatever numbers it gave them; ``times``: with the runs."""
    ids = "(SELECT obj, id FROM object UNION SELECT obj, id FROM object_past)"
    found = []
    for past in ("", "_past") if times else ("",):
        when = "0" if not times else "n.first_run, n.last_run" if past else "n.first_run"
        found += [
            f"SELECT id, mode, uid, gid, size, mtime_ns, rdev, link_target, n.digest, data, {when}"
            f"{', data_run' if times else ''} FROM object{past} n LEFT JOIN extras USING (extras)",
            f"SELECT p.id, o.id, name, {when} FROM name{past} n "
            f"JOIN {ids} o ON o.obj = n.obj JOIN {ids} p ON p.obj = n.parent",
        ]
    connection = sqlite3.connect(os.fsdecode(job.lb + b"/job.db"))
    with contextlib.closing(connection):
        return [sorted(connection.execute(part).fetchall(), key=repr) for part in found]


@given(rounds=ROUNDS)
@settings(deadline=None, max_examples=EXAMPLES // 4)
def test_a_feed_whatever_its_order_and_a_scan_give_the_same_history_and_many_small_runs_the_state_of_a_large_one(
    rounds: list[list[Change]],
) -> None:
    with empty_folder(memory=True) as folder:
        source = folder + b"/source"
        os.mkdir(source)
        jobs = [make_job(folder + b"/%d" % number) for number, make_job in enumerate(JOBS)]
        once = scan_job(folder + b"/once")
        for job in [*jobs, once]:
            job.source = source
            job.configure()
        for _ in changers(source, rounds, standard=True):
            for job in jobs:
                run_well(job)
        run_well(once)
        first, *others = [facts(job, times=True) for job in jobs]
        for other in others:
            assert other == first
        assert facts(once, times=False) == facts(jobs[0], times=False)
        assert_equal(once.tree, jobs[0].tree)


# -- a source that changes while it is looked at ------------------------------------------------------------------


class LiveScan(Scan):
    """A scan that tells a function how many listings there were."""

    meddle: Callable[[int], None]

    def observe(self, view: View, scope: Scope, known: Known, hints: Iterable[Hint]) -> Iterator[Seen]:
        for count, one in enumerate(super().observe(view, scope, known, hints)):
            yield one
            self.meddle(count)


class LiveScanPlugin:
    def __init__(self) -> None:
        self.meddle: Callable[[int], None] = lambda count: None

    @hookimpl
    def lb_register_detectors(self) -> Iterable[DetectorPlugin]:
        def create(options: object) -> LiveScan:
            scan = LiveScan()
            scan.meddle = self.meddle
            return scan

        yield DetectorPlugin(name="live", summary="a scan for tests", create=create)


@pytest.mark.parametrize("detector", ["live", "feed"])
@given(rounds=st.lists(st.tuples(CHANGES, st.integers(0, 12), CHANGES), min_size=1, max_size=4))
@settings(deadline=None, max_examples=EXAMPLES // 2)
def test_whatever_changes_while_it_is_looked_at_a_run_ends_well_and_a_quiet_one_is_exact(
    detector: str, rounds: list[tuple[list[Change], int, list[Change]]]
) -> None:
    with empty_folder(memory=True) as folder:
        plugin = LiveScanPlugin() if detector == "live" else Feed()
        job = Job(folder, plugin, detector=detector, max_delete="100%")
        changer = Changer(job.source, job.source + b"-outside")
        for change in STANDARD:
            changer.make(change)
        run_well(job)
        points: dict[int, Tree] = {}
        for before, when, meanwhile in rounds:
            for change in before:
                changer.make(change)

            def meddle(count: int) -> None:
                if count == when:  # noqa: B023 - used within this round
                    for change in meanwhile:  # noqa: B023
                        changer.make(change)

            if isinstance(plugin, Feed):
                plugin.observed.clear()
            plugin.meddle = meddle
            outcome = job.run()
            assert outcome.exit_code in (0, 3), outcome
            plugin.meddle = lambda count: None
            source = read_tree(job.source)
            points[run_well(job)] = source
            assert_equal(source, job.tree)
        for number, source in points.items():
            assert_equal(source, read_point(job.target, number), f"run {number}")
