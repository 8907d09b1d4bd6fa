"""Random trees and changes on a simulated Lustre: after each run the backup equals the source, by feed and by scan."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lb_lustre import changelog
from lb_lustre.snapshots import LustreSnapshots
from lbcore.alone import collect_alone
from lbcore.progress import Progress
from lbcore.run import JobRun, Options
from lbcore.testing import Tree, compare_trees
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated, simulated
from tests.lb_lustre.test_simulated import seen
from tests.support.changes import KINDS, Change, Changer
from tests.support.points import read_point
from tests.support.running import PauseAt

pytestmark = pytest.mark.sweep

NUMBERS = st.integers(min_value=0, max_value=40)
CHANGES = st.lists(st.builds(Change, st.sampled_from(sorted(KINDS)), NUMBERS, NUMBERS, NUMBERS), max_size=10)
ROUNDS = st.lists(st.tuples(CHANGES, st.integers(0, 12)), min_size=1, max_size=4)
"""Changes, and what happens to the servers before and after them: see ``crash``, ``migrate``, ``lose``, ``disturb``."""
EXAMPLES = settings.default.max_examples if settings.default else 100
STANDARD = [
    Change(*change)
    for change in [
        ("mkdir", 0, 0, 0), ("mkdir", 0, 2, 0), ("mkdir", 1, 1, 0), ("create", 0, 3, 1), ("create", 1, 2, 2),
        ("create", 2, 3, 3), ("link", 0, 2, 4), ("symlink", 2, 5, 1), ("fifo", 3, 5, 0),
    ]
]  # fmt: skip
numbers = itertools.count()


@pytest.fixture(scope="module")
def shared_lustre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    with simulated(tmp_path_factory.mktemp("model") / "lustre") as served:
        yield served


def crash(lustre: Simulated, what: int) -> None:
    """A server forgets its last records, all of which were read, and uses their indices again."""
    if what in (0, 1):
        lustre.ask("damage", mdt=what, what="roll_back", count=3)


def lose(lustre: Simulated, what: int) -> set[int]:
    """A server loses some records; the exit statuses that the next run may have."""
    if what in (0, 1):
        return {0, 5}  # a crash that left none of the records that were read is like a user who is gone
    if what not in (2, 3):
        return {0}
    last = lustre.last()[what - 2]
    lustre.ask("damage", mdt=what - 2, what="lose", first=last - 4, last=last - 2)
    return {0, 5}


def disturb(lustre: Simulated, what: int) -> set[int]:
    """A server writes a record late, gives records in small pieces, or has another time; the statuses as above."""
    if what in (8, 9):
        lustre.ask("damage", mdt=what - 8, what="delay", index=lustre.last()[what - 8] - 1)
        return {0, 5}  # what is missing from the beginning on is not waited for
    if what in (10, 11):
        lustre.ask("damage", mdt=what - 10, what="dribble", most_bytes=512)
        lustre.ask("damage", mdt=what - 10, what="skew", seconds=-1000)
    return {0}


def migrate(lustre: Simulated, source: bytes, what: int) -> None:
    """Some objects move to another server, one of them twice, and get other FIDs."""
    if what in (4, 5, 6, 7):
        paths = sorted(os.path.join(top, name) for top, folders, files in os.walk(source) for name in folders + files)
        for path in [*paths[what - 4 :: 4], *paths[:1]]:
            below = os.path.relpath(path, os.fsencode(lustre.root))
            lustre.ask("migrate", path=os.fsdecode(below), mdt=(what + len(path)) % 2)


@pytest.mark.parametrize("detector", ["changelog", "scan"])
@given(rounds=ROUNDS)
@settings(deadline=None, max_examples=EXAMPLES // 4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_backup_equals_the_source_after_each_run_and_every_point_in_time_stays_what_it_was(
    shared_lustre: Simulated, tmp_path: Path, detector: str, rounds: list[tuple[list[Change], int]]
) -> None:
    with changed_job(shared_lustre, tmp_path, detector) as (job, changer):
        points = {}
        for changes, what in [([], 12), *rounds]:
            crash(shared_lustre, what)
            for change in changes:
                changer.make(change)
            migrate(shared_lustre, job.source, what)
            allowed = lose(shared_lustre, what) | disturb(shared_lustre, what)
            before = seen(job.source)
            outcome = job.run()
            assert outcome.exit_code in allowed, outcome
            points[outcome.run] = before
            assert compare_trees(before, seen(job.tree)) == []
        for run, tree in points.items():
            assert compare_trees(tree, read_point(job.target, run)) == [], run


@given(rounds=st.lists(st.tuples(CHANGES, CHANGES, st.integers(0, 12), st.booleans()), min_size=1, max_size=4))
@settings(deadline=None, max_examples=EXAMPLES // 20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_backup_equals_the_snapshot_whatever_happens_once_it_is_made(
    shared_lustre: Simulated, tmp_path: Path, rounds: list[tuple[list[Change], list[Change], int, bool]]
) -> None:
    """Some runs are paused, and go on after further changes."""
    lustre = shared_lustre
    with changed_job(lustre, tmp_path, "changelog") as (job, changer), pytest.MonkeyPatch.context() as patch:
        job.configure(snapshotter="lustre", lustre=lustre.snapshotter())
        points: dict[int, Tree] = {}
        real, what = LustreSnapshots.create, 12
        after: list[Change] = []

        def create(self: LustreSnapshots, path: bytes, name: str) -> None:
            real(self, path, name)
            points[int(name.rpartition("-")[2])] = seen(path)
            for change in after:
                changer.make(change)
            migrate(lustre, job.source, what)

        patch.setattr(LustreSnapshots, "create", create)
        for changes, after, what, paused in [([], [], 12, False), *rounds, ([], [], 12, False)]:  # noqa: B007
            if what in (0, 1):
                collect_alone(job.config)  # else the crash would take records of what nobody has read
            crash(lustre, what)
            for change in changes:
                changer.make(change)
            allowed = lose(lustre, what) | disturb(lustre, what)
            if paused:
                JobRun(job.config, job.plugins, Options(), Progress(), PauseAt(1 + what)).run()
                for change in changes:
                    changer.make(change)
            outcome = job.run()
            assert (outcome.exit_code in allowed, outcome.message) == (True, ""), outcome
            assert compare_trees(points[outcome.run], seen(job.tree)) == []
            assert (lustre.snapshots(), lustre.mounted()) == ([], [])
        assert compare_trees(seen(job.source), seen(job.tree)) == []
        for run, tree in points.items():
            assert compare_trees(tree, read_point(job.target, run)) == [], run


@contextlib.contextmanager
def changed_job(lustre: Simulated, folder: Path, detector: str) -> Iterator[tuple[Job, Changer]]:
    """A job of a tree of its own, and who changes that."""
    name = f"example-{next(numbers)}"
    source = os.fsencode(lustre.root / name)
    os.mkdir(source)
    users = lustre.register(name[:15])
    job = Job(os.fsencode(folder / name), max_delete="100%", racy_seconds=5, detector=detector)
    job.source = source
    options = {"filesystem": "simfs", "devices": str(lustre.devices), "users": list(users)}
    job.configure(**({"changelog": options} if detector == "changelog" else {}))
    changer = Changer(source, source + b"-outside")
    for change in STANDARD:
        changer.make(change)
    try:
        with pytest.MonkeyPatch.context() as patch:
            lustre.use(patch)
            patch.setattr(changelog, "_SETTLED_NS", 0)
            patch.setattr("lb_lustre.feed._HOLE_SECONDS", 0)
            yield job, changer
    finally:
        for mdt, user in enumerate(users):
            lustre.ask("damage", mdt=mdt, what="dribble", most_bytes=0)
            lustre.ask("damage", mdt=mdt, what="skew", seconds=0)
            lustre.ask("deregister", mdt=mdt, user=user.partition("=")[2])
