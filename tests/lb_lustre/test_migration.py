"""Objects that move to another metadata server get other FIDs: they stay what they are in the backup."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lb_lustre import fid
from lb_lustre.looking import Looking
from lbcore.alone import collect_alone
from lbcore.builtin.copy import Copy
from lbcore.model import Delivery, NotDelivered, ObjectId, Seen, TransferItem, Unreadable, View
from lbcore.progress import Progress
from lbcore.run import JobRun, Options
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_simulated import CHANGE, SETUP, backed_up, settle, shell
from tests.support.points import read_point
from tests.support.running import PauseAt

MakeJob = Callable[..., Job]


def numbers(job: Job, *paths: str) -> list[int]:
    """What the catalog calls the objects of some paths."""
    with job.catalog() as catalog:
        return [found for path in paths if (found := catalog.names.find(os.fsencode(path)))]


def inodes(job: Job, *paths: str) -> list[int]:
    return [os.lstat(os.path.join(job.tree, os.fsencode(path))).st_ino for path in paths]


def migrate(lustre: Simulated, *paths: str, mdt: int = 1) -> None:
    for path in paths:
        lustre.ask("migrate", path=path, mdt=mdt)


@contextlib.contextmanager
def hidden(lustre: Simulated, path: str) -> Iterator[None]:
    """What a path is called now cannot be looked at."""
    new, look = fid.parse(lustre.ask("fid_of", path=path)), Looking.look

    def fail(self: Looking, object_id: ObjectId) -> Seen:
        return Unreadable(path=b"new", reason="not today", object=new) if object_id == new else look(self, object_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Looking, "look", fail)
        yield


EVERYTHING = ("a/b/two", "a/one", "a/symlink", "a/pipe", "a/sparse", "a/b", "a/empty", "a", "c")


def test_nothing_is_copied_and_everything_keeps_its_place(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    before = numbers(job, *EVERYTHING, "c/link"), inodes(job, *EVERYTHING, "c/link")
    fids = [lustre.ask("fid_of", path=path) for path in EVERYTHING]
    migrate(lustre, *EVERYTHING)
    assert [lustre.ask("fid_of", path=path) for path in EVERYTHING] != fids
    outcome = backed_up(job)
    assert {key: outcome.counts.get(key, 0) for key in ("objects_new", "objects_removed", "files_copied")} == {
        "objects_new": 0, "objects_removed": 0, "files_copied": 0
    }  # fmt: skip
    assert (numbers(job, *EVERYTHING, "c/link"), inodes(job, *EVERYTHING, "c/link")) == before
    assert backed_up(job, full=True).counts.get("objects_changed", 0) == 0, "a scan finds the ids that it expects"
    shell(lustre.root, CHANGE)
    backed_up(job)


def test_several_migrations_in_a_row_and_changes_between_them(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    first = backed_up(job)
    before = read_point(job.target, first.run)
    known = numbers(job, "a/one", "a/b/two")
    migrate(lustre, "a/one", "a")
    shell(lustre.root, "echo more >> a/one; mv a/b/two c/; echo new > a/new")
    migrate(lustre, "a/one", "a", "c/two", "a/new", mdt=0)
    migrate(lustre, "a/one", "c")
    shell(lustre.root, "chmod 600 a/one; rm a/pipe")
    outcome = backed_up(job)
    assert numbers(job, "a/one", "c/two") == known
    assert (outcome.counts["files_copied"], outcome.counts["objects_removed"]) == (2, 1)
    assert read_point(job.target, first.run) == before


def test_what_is_removed_after_its_migration_is_removed(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    migrate(lustre, "a/one", "a/b", "a/b/two")
    shell(lustre.root, "rm -r a/b a/one c/link")
    assert backed_up(job).counts["objects_removed"] == 3


def test_a_file_keeps_its_names_until_its_new_id_could_be_looked_at(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    known = numbers(job, "a/one")
    migrate(lustre, "a/one")
    with hidden(lustre, "a/one"):
        for _ in range(2):  # the second time no record tells of it any more
            outcome = job.run()
            assert (outcome.exit_code, outcome.counts.get("objects_removed", 0)) == (3, 0)
            assert numbers(job, "a/one", "c/link") == known * 2
    assert backed_up(job).counts.get("files_copied", 0) == 0
    assert numbers(job, "a/one", "c/link") == known * 2
    with job.catalog() as catalog:
        assert (catalog.renumbered.any(), catalog.hints.count()) == (False, 0)


def test_data_that_was_written_shortly_before_is_compared_under_the_new_id(
    lustre: Simulated, make_job: MakeJob
) -> None:
    job = make_job(racy_seconds=3600)
    shell(lustre.root, SETUP)
    backed_up(job)
    shell(lustre.root, "echo late >> a/one")
    backed_up(job)
    migrate(lustre, "a/one")
    backed_up(job)
    # What is written without a record, in the same second, with the same size.
    content = Path(os.fsdecode(os.path.join(lustre.folder, b"contents/live".decode())))
    new = fid.parse(lustre.ask("fid_of", path="a/one"))
    (content / new.hex()).write_bytes(b"one\nLATE\n")
    assert backed_up(job).counts["files_copied"] == 1


@pytest.mark.parametrize("path", ["a/one", "a/b"])
def test_a_snapshot_between_two_migrations_has_the_object(lustre: Simulated, make_job: MakeJob, path: str) -> None:
    """The run collects the first one, takes its snapshot, and learns of the second one before it looks."""
    job = make_job(snapshotter="lustre", lustre=lustre.snapshotter())
    shell(lustre.root, SETUP)
    backed_up(job)
    known = numbers(job, path)
    migrate(lustre, path, mdt=1)
    assert JobRun(job.config, job.plugins, Options(), Progress(), PauseAt(6)).run().state == "paused"
    assert len(lustre.snapshots()) == 1
    migrate(lustre, path, mdt=0)
    collect_alone(job.config)
    for _ in range(2):
        outcome = backed_up(job)
        assert (outcome.counts.get("objects_removed", 0), outcome.counts.get("files_copied", 0)) == (0, 0)
        assert numbers(job, path) == known


def test_content_that_cannot_be_brought_after_a_migration_leaves_what_there_is(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    known = numbers(job, "a/b/two")
    shell(lustre.root, "echo more >> a/b/two")
    migrate(lustre, "a/b/two")

    def fail(self: Copy, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes) -> Iterator[Delivery]:
        yield from (NotDelivered(obj=item.obj, reason="Input/output error") for item in items)

    with monkeypatch.context() as patch:
        patch.setattr(Copy, "deliver", fail)
        for _ in range(3):
            outcome = job.run()
            assert (outcome.exit_code, outcome.counts.get("objects_removed", 0)) == (3, 0)
            assert Path(os.fsdecode(job.tree), "a/b/two").read_text() == "two\n"
    backed_up(job)
    assert numbers(job, "a/b/two") == known


def test_what_is_released_after_its_migration_keeps_the_content_that_the_backup_has(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    shell(lustre.root, "echo more >> a/b/two")
    migrate(lustre, "a/b/two")
    lustre.ask("release", path="a/b/two")
    for _ in range(4):
        assert job.run().exit_code == 3
        assert Path(os.fsdecode(job.tree), "a/b/two").read_text() == "two\n"


@pytest.mark.parametrize(("migrations", "times"), [(1, 2), (1, 4), (2, 4)])
def test_an_object_that_could_not_be_looked_at_for_long_and_moved_on_has_one_name(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, migrations: int, times: int
) -> None:
    settle(monkeypatch)
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    known = numbers(job, "a/b/two")
    for number in range(migrations):
        migrate(lustre, "a/b/two", mdt=1 - number)
    with hidden(lustre, "a/b/two"):
        for _ in range(times):
            assert job.run().exit_code == 3
    shell(lustre.root, "mkdir D; mv a/b/two D/")
    assert backed_up(job).counts.get("files_copied", 0) == 0
    assert numbers(job, "D/two") == known
