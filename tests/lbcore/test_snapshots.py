"""Runs that read snapshots, on a real btrfs: the snapshotter is the example of ``docs/hooks.md``."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbcore.catalog.catalog import Catalog
from lbcore.model import Hint, HintFlag, View
from lbcore.progress import Progress
from lbcore.run import JobRun, Options, Outcome
from lbcore.testing import MakeJob, Tree, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.running import PauseAt

PAGE = (Path(__file__).parents[2] / "docs/hooks.md").read_text()
(EXAMPLE,) = re.findall(r"## lb_register_snapshotters.*?```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """A subvolume to back up."""
    if os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None:
        pytest.skip("needs root and mkfs.btrfs: a btrfs is mounted")
    image, mount = tmp_path / "image", tmp_path / "btrfs"
    with image.open("wb") as file:
        file.truncate(200 << 20)
    mount.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, mount], check=False, capture_output=True).returncode:
        pytest.skip("needs loop devices: a btrfs is mounted")
    try:
        subprocess.run(["btrfs", "subvolume", "create", mount / "source"], check=True, capture_output=True)
        yield mount / "source"
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.fixture
def example() -> types.ModuleType:
    module = types.ModuleType("example")
    exec(EXAMPLE, module.__dict__)
    return module


@pytest.fixture
def job(btrfs: Path, example: types.ModuleType, lb_job: MakeJob) -> Job:
    (btrfs / "a/b").mkdir(parents=True)
    for name in ("a/one", "a/b/two", "three"):
        (btrfs / name).write_text(f"{name}\n")
    job = lb_job(example, exclude=["/.lb-snapshots"], max_delete="100%")
    job.source = os.fsencode(btrfs)
    job.configure(snapshotter="subvolumes")
    return job


def without(tree: Tree) -> Tree:
    """What is to be in the backup."""
    return {path: node for path, node in tree.items() if not path.startswith(b".lb-snapshots")}


def source(job: Job) -> Tree:
    # The folder of the snapshots is made in it, and changes its times.
    return {path: node for path, node in without(read_tree(job.source)).items() if path}


def mirror(job: Job) -> Tree:
    return {path: node for path, node in read_tree(job.tree).items() if path}


def snapshots(job: Job) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(os.path.join(os.fsdecode(job.source), ".lb-snapshots")))
    return []


def backed_up(job: Job, tree: Tree | None = None) -> Outcome:
    outcome = job.run()
    assert (outcome.exit_code, outcome.state, outcome.message) == (0, "committed", ""), outcome
    assert compare_trees(source(job) if tree is None else tree, mirror(job)) == []
    assert snapshots(job) == []
    return outcome


def after_the_snapshot(monkeypatch: pytest.MonkeyPatch, example: types.ModuleType, change: Callable[[], None]) -> None:
    real = example.Subvolumes.create

    def create(self: object, path: bytes, name: str) -> None:
        real(self, path, name)
        change()

    monkeypatch.setattr(example.Subvolumes, "create", create)


def change(folder: Path, number: int) -> None:
    (folder / "a/one").write_text(f"one, {number}\n")
    (folder / f"new-{number}").write_text("new\n")
    (folder / "a/b").rename(folder / f"moved-{number}")
    (folder / "a/b").mkdir()
    (folder / f"moved-{number}/two").rename(folder / "a/b/two")


def test_the_backup_is_what_the_source_was_when_its_snapshot_was_made(
    btrfs: Path, job: Job, example: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        before = source(job)
        with monkeypatch.context() as patch:
            after_the_snapshot(patch, example, lambda number=number: change(btrfs, number))  # type: ignore[misc]
            backed_up(job, before)
    first = backed_up(job)
    with job.catalog() as catalog:
        run = catalog.runs.get(first.run)
        assert run is not None and run.view_from_ns is not None and run.view_to_ns is not None
        assert run.started_ns < run.view_from_ns < run.view_to_ns < (run.finished_ns or 0)
    assert "flush " in job.log(first.run) and "snapshot " in job.log(first.run)


def test_an_open_run_keeps_its_snapshot_and_takes_another_when_it_is_lost(btrfs: Path, job: Job) -> None:
    backed_up(job)
    change(btrfs, 1)
    then = source(job)
    paused = JobRun(job.config, job.plugins, Options(), Progress(), PauseAt(6)).run()
    (kept,) = snapshots(job)
    assert (paused.exit_code, kept.rpartition("-")[2]) == (75, str(paused.run))
    change(btrfs, 2)
    assert JobRun(job.config, job.plugins, Options(), Progress(), PauseAt(6)).run().run == paused.run
    assert snapshots(job) == [kept]
    assert backed_up(job, then).run == paused.run
    backed_up(job)
    change(btrfs, 3)
    paused = JobRun(job.config, job.plugins, Options(), Progress(), PauseAt(6)).run()
    subprocess.run(
        ["btrfs", "subvolume", "delete", btrfs / ".lb-snapshots" / snapshots(job)[0]], check=True, capture_output=True
    )
    change(btrfs, 4)
    assert backed_up(job).run == paused.run


def test_half_a_snapshot_is_never_read(
    btrfs: Path, job: Job, example: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was killed while it was made: nobody knows whether it is whole."""
    backed_up(job)
    change(btrfs, 1)

    def killed() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        after_the_snapshot(patch, example, killed)
        job.run()
    assert len(snapshots(job)) == 1
    change(btrfs, 2)
    backed_up(job)


def test_a_view_that_is_not_one_of_the_source_is_refused(
    btrfs: Path, job: Job, example: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backed_up(job)
    (tmp_path / "another").mkdir()

    @contextlib.contextmanager
    def mount(self: object, path: bytes, name: str) -> Iterator[View]:
        yield View(root=os.fsencode(tmp_path / "another"), stable=True)

    monkeypatch.setattr(example.Subvolumes, "mount", mount)
    outcome = job.run()
    assert (outcome.exit_code, "another is not the directory this job has backed up" in outcome.message) == (1, True)
    assert compare_trees(source(job), mirror(job)) == []


def test_a_dry_run_looks_at_the_live_tree_and_takes_no_snapshot(
    btrfs: Path, job: Job, example: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(job)
    change(btrfs, 1)

    def killed() -> None:
        pytest.fail("a snapshot was made")

    after_the_snapshot(monkeypatch, example, killed)
    assert job.plan()["objects_new"] == 2


def test_what_a_later_collection_said_is_not_overwritten_by_an_earlier_one(tmp_path: Path) -> None:
    with contextlib.closing(Catalog.open(os.fsencode(tmp_path / "job.db"))) as catalog:
        hints, one = catalog.hints, b"x" * 16
        hints.add([Hint(id=one, flags=HintFlag.DATA | HintFlag.OPEN, time_ns=9)], 6, 1)
        hints.add([Hint(id=one, flags=HintFlag.DATA | HintFlag.CLOSED, time_ns=5)], 4, 2)
        hints.keep(one, HintFlag.NAMES, 5)
        assert hints.flags(one) == HintFlag.DATA | HintFlag.OPEN | HintFlag.CLOSED | HintFlag.NAMES
        assert [hint.time_ns for hint in hints.all()] == [9]
        hints.drop_used(5, racy_from_ns=1 << 62, open_from_ns=1 << 62)
        assert hints.count() == 1
        assert [hint.id for hint in hints.written_since(9)] == [one]
        assert list(hints.written_since(10)) == []
