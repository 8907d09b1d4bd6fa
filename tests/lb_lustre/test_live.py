"""The content of a live Lustre is read by FID, and must be in one state while it is read."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lb_lustre import content, fid
from lbcore import hookimpl
from lbcore.apply import content as content_stage
from lbcore.keeping import find_keeping
from lbcore.model import View
from lbcore.plugins.types import ExecutorPlugin
from lbcore.run import JobRun
from lbcore.testing import read_tree
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_extras import NOT_READ
from tests.lb_lustre.test_simulated import backed_up, shell
from tests.support.running import mounted, needs_root, problems

MakeJob = Callable[..., Job]
CHANGED = "changed while it was read"
WAYS = ("a new file is copied", "a known file is copied", "a large file is copied", "a file is compared")


class Processes:
    """An executor whose workers share nothing with the run."""

    @hookimpl
    def lb_register_executors(self) -> Iterable[ExecutorPlugin]:
        def create(options: object, workers: int) -> Executor:
            return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

        yield ExecutorPlugin(name="processes", summary="for tests", create=create)


def prepared(lustre: Simulated, job: Job, how: str) -> Path:
    """A file ``d/file`` that the next run reads in one of the ways."""
    file = lustre.root / "d/file"
    file.parent.mkdir()
    (lustre.root / "other").write_bytes(b"of another")
    if how != WAYS[0]:
        file.write_bytes(b"content")
    backed_up(job)
    if how == WAYS[3]:
        lustre.later()
        file.chmod(0o640)
    else:
        file.write_bytes(b"new content" * (200_000 if how == WAYS[2] else 1))
    return file


def before_it_is_read(patch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Once the run has observed all, and read nothing."""
    begin_applying = JobRun._begin_applying

    def begin(run: JobRun, *arguments: Any) -> None:
        begin_applying(run, *arguments)
        action()

    patch.setattr(JobRun, "_begin_applying", begin)


def after_it_is_read(patch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Once the content of a file was read, while it is open."""
    for name in ("lbcore.builtin.copy.copy_content", "lbcore.apply.shards.digest_of"):
        module, _, function = name.rpartition(".")
        read = getattr(__import__(module, fromlist=[function]), function)

        def then(*arguments: Any, read: Callable[..., Any] = read) -> Any:
            found = read(*arguments)
            action()
            return found

        patch.setattr(name, then)


def rewrite(path: Path) -> None:
    """Another content of the same size, under the same time."""
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def mirrored(job: Job, name: str) -> bytes:
    return Path(os.fsdecode(job.tree), name).read_bytes()


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("script", ["mv d/file d/renamed", "mv d/file moved", "mv d e", "ln d/file x; mv other d/file"])
def test_a_file_that_is_renamed_before_it_is_read_is_captured(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, how: str, script: str
) -> None:
    job = make_job()
    content_then = prepared(lustre, job, how).read_bytes()

    def move() -> None:
        lustre.later()
        shell(lustre.root, script)

    with monkeypatch.context() as patch:
        before_it_is_read(patch, move)
        outcome = job.run()
    assert (outcome.exit_code, problems(job, outcome.run)) == (0, {})
    assert mirrored(job, "d/file") == content_then
    assert backed_up(job).counts["files_copied"] == 0, "it is moved there, too"


@pytest.mark.parametrize("how", WAYS)
def test_a_file_that_is_written_to_while_it_is_read_is_told_by_its_data_version_alone(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    job = make_job()
    file = prepared(lustre, job, how)
    before = read_tree(job.tree).get(b"d/file")
    with monkeypatch.context() as patch:
        after_it_is_read(patch, lambda: rewrite(file))
        outcome = job.run()
    assert (outcome.exit_code, problems(job, outcome.run)) == (3, {b"d/file": CHANGED})
    assert read_tree(job.tree).get(b"d/file") == before
    backed_up(job)


@pytest.mark.parametrize("how", WAYS)
def test_a_file_that_is_replaced_before_it_is_read_is_not_taken_for_the_other(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    job = make_job()
    file = prepared(lustre, job, how)
    before = read_tree(job.tree).get(b"d/file")

    def replace() -> None:
        """By one that nothing but its FID tells apart."""
        twin = lustre.root / "twin"
        twin.write_bytes(b"x" * file.stat().st_size)
        shutil.copystat(file, twin)
        twin.rename(file)

    with monkeypatch.context() as patch:
        before_it_is_read(patch, replace)
        outcome = job.run()
    assert (outcome.exit_code, problems(job, outcome.run)) == (3, {b"d/file": CHANGED})
    assert read_tree(job.tree).get(b"d/file") == before
    backed_up(job)


@pytest.mark.parametrize("mode", [0o600, 0o755])
def test_rights_that_were_seen_are_not_given_to_a_content_that_may_have_been_written_after_they_were_taken_away(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """A mode that changed; and a program that was renamed, of which nobody can tell whether it kept capabilities."""
    job = make_job()
    file = prepared(lustre, job, WAYS[0])
    file.chmod(mode)

    def change() -> None:
        lustre.later()
        file.chmod(0o640) if mode == 0o600 else file.rename(lustre.root / "program")

    with monkeypatch.context() as patch:
        before_it_is_read(patch, change)
        outcome = job.run()
    assert (outcome.exit_code, problems(job, outcome.run)) == (3, {b"d/file": CHANGED})
    backed_up(job)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("moved", [False, True])
def test_a_released_file_is_not_opened_under_whatever_name(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, how: str, moved: bool
) -> None:
    job = make_job()
    prepared(lustre, job, how)

    def release() -> None:
        shell(lustre.root, "mv d/file moved" if moved else "mv other d/file")
        lustre.ask("release", path="moved" if moved else "d/file")

    with monkeypatch.context() as patch:
        before_it_is_read(patch, release)
        outcome = job.run()
    assert (outcome.exit_code, problems(job, outcome.run)) == (3, {b"d/file": NOT_READ})
    assert lustre.ask("recalls") == [0, 0]


def test_without_the_library_files_are_read_by_fid_and_told_by_their_times_which_is_said_once(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LB_LUSTREAPI", "nowhere.so")
    job = make_job()
    prepared(lustre, job, WAYS[1])
    caplog.clear()
    with monkeypatch.context() as patch:
        before_it_is_read(patch, lambda: shell(lustre.root, "mv d e"))
        outcome = job.run()
    assert (outcome.exit_code, mirrored(job, "d/file")) == (0, b"new content")
    assert caplog.text.count("nowhere.so is not on this node") == 1
    backed_up(job)

    def rename() -> None:
        lustre.later()
        shell(lustre.root, "mv e/file e/renamed")

    (lustre.root / "e/file").write_bytes(b"another content")
    with monkeypatch.context() as patch:
        before_it_is_read(patch, rename)
        outcome = job.run()
    assert (outcome.exit_code, problems(job, outcome.run)) == (3, {b"e/file": CHANGED})
    backed_up(job)


def test_workers_in_processes_of_their_own_ask_for_versions_too(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_stage, "_FEW_FILES", 0)
    job = make_job()
    job.plugins.register(Processes(), "test-processes")
    job.configure(executor="processes")
    prepared(lustre, job, WAYS[1])
    assert lustre.ask("flushes", path="d/file") == 2
    backed_up(job)
    assert lustre.ask("flushes", path="d/file") == 4, "before and after"


def test_what_a_view_is_read_by(lustre: Simulated, make_job: MakeJob, tmp_path: Path) -> None:
    live = View(root=os.fsencode(lustre.root), stable=False)
    keeping = find_keeping(make_job().config.extras, live.root)
    by_id = keeping.by_id(live).by_id
    assert by_id is not None and os.path.samefile(by_id.path(fid.ROOT), lustre.root)
    assert keeping.by_id(View(root=live.root, stable=True)).by_id is None, "in a snapshot nothing changes"
    assert content.find_content(os.fsencode(tmp_path)) is None


@needs_root
def test_what_is_mounted_below_is_read_by_its_path(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job(detector="scan")
    (lustre.root / "mnt").mkdir()
    with mounted(os.fsencode(lustre.root / "mnt")):
        (lustre.root / "mnt/file").write_bytes(b"elsewhere")
        backed_up(job)
    assert mirrored(job, "mnt/file") == b"elsewhere"
