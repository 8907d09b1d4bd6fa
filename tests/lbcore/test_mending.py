"""The mirror is not what the catalog says: somebody took something away, or it rotted. Runs say so, and mend it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from lbcore import runfile
from lbcore.apply import arriving
from lbcore.apply.work import Work
from lbcore.progress import Progress
from lbcore.run import JobRun, Options
from lbcore.testing import MakeJob, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import write
from tests.support.commands import call, configuration
from tests.support.points import read_point
from tests.support.running import PauseAt, backed_up
from tests.support.source import at, move, put


@pytest.fixture
def job(lb_job: MakeJob) -> Job:
    job = lb_job(racy_seconds=0, max_delete="100%")
    put(job, "d/e/file", "d/e/g/deep", "d/other", "file", "first")
    os.symlink("file", at(job, "link"))
    os.mkfifo(at(job, "pipe"))
    os.link(at(job, "file"), at(job, "d/same"))
    backed_up(job)
    put(job, "second")
    os.unlink(at(job, "first"))
    backed_up(job)
    return job


def in_mirror(job: Job, path: str) -> bytes:
    return os.path.join(job.tree, os.fsencode(path))


def run_finds_damage(job: Job) -> None:
    outcome = job.run()
    assert (outcome.exit_code, outcome.state) == (4, "committed")


def verified(job: Job) -> tuple[int, str]:
    result = call(configuration(job), "verify")
    return result.exit_code, result.stdout


def change_linked_file(job: Job, change: str) -> None:
    """``file`` and ``d/same`` are one file."""
    if change == "content":
        write(at(job, "file"), b"new content")
    elif change == "removed":
        os.unlink(at(job, "file"))
        os.unlink(at(job, "d/same"))
    else:
        move(job, "file", "d/z")
        move(job, "d/same", "same")


def assert_mended(job: Job, first: object) -> None:
    """Everything is right, now and at the first point in time."""
    backed_up(job)
    assert verified(job)[0] == 0
    assert compare_trees(first, read_point(job.target, 1)) == []  # type: ignore[arg-type]


def test_a_file_gone_from_the_mirror_is_damage_when_a_run_meets_it_and_the_next_brings_it(job: Job) -> None:
    first = read_point(job.target, 1)
    os.unlink(in_mirror(job, "d/other"))
    os.chmod(at(job, "d/other"), 0o600)
    done = call(configuration(job), "run")
    assert done.exit_code == 4
    assert "1 objects were gone from the mirror" in done.stderr
    assert_mended(job, first)


def test_a_new_file_goes_into_a_directory_that_was_gone_from_the_mirror(job: Job) -> None:
    first = read_point(job.target, 1)
    shutil.rmtree(in_mirror(job, "d/e"))
    put(job, "d/e/g/new")
    run_finds_damage(job)
    with open(in_mirror(job, "d/e/g/new"), "rb") as file:
        assert file.read() == b"d/e/g/new"
    code, said = verified(job)
    assert code == 4
    assert "d/e/file: is missing" in said
    assert "brings 2 of its objects again" in said
    assert_mended(job, first)


def test_what_is_no_file_and_gone_is_made_anew_when_a_run_meets_it(job: Job) -> None:
    first = read_point(job.target, 1)
    os.unlink(in_mirror(job, "link"))
    os.unlink(in_mirror(job, "pipe"))
    os.chmod(at(job, "pipe"), 0o600)
    os.utime(at(job, "link"), ns=(0, 5), follow_symlinks=False)
    run_finds_damage(job)
    assert job.differences() == []
    assert_mended(job, first)


def test_a_directory_replaced_by_a_file_is_a_directory_again(job: Job) -> None:
    first = read_point(job.target, 1)
    shutil.rmtree(in_mirror(job, "d/e/g"))
    with open(in_mirror(job, "d/e/g"), "wb") as file:
        file.write(b"not mine")
    os.chmod(at(job, "d/e/g"), 0o700)
    run_finds_damage(job)
    assert stat.S_ISDIR(os.lstat(in_mirror(job, "d/e/g")).st_mode)
    assert verified(job)[0] == 4
    assert_mended(job, first)


@pytest.mark.parametrize("place", range(1, 13))
def test_what_is_moved_in_the_source_and_gone_from_the_mirror_is_there_again(job: Job, place: int) -> None:
    """Uninterrupted, and paused anywhere."""
    first = read_point(job.target, 1)
    os.unlink(in_mirror(job, "d/other"))
    shutil.rmtree(in_mirror(job, "d/e/g"))
    move(job, "d/other", "d/moved")
    move(job, "d/e/g", "g")
    move(job, "link", "d/link")
    os.unlink(in_mirror(job, "link"))
    paused = JobRun(job.config, job.plugins, Options(), Progress(), PauseAt(place)).run()
    assert paused.exit_code in (4, 75)
    if paused.exit_code == 75:
        run_finds_damage(job)
    job.run()  # what could be brought only by the next run
    with open(in_mirror(job, "d/moved"), "rb") as file:
        assert file.read() == b"d/other"
    assert_mended(job, first)


@pytest.mark.parametrize("moved", [False, True])
def test_what_was_in_a_directory_that_is_gone_from_the_mirror_is_brought_by_the_next_run(job: Job, moved: bool) -> None:
    first = read_point(job.target, 1)
    shutil.rmtree(in_mirror(job, "d/e"))
    if moved:
        move(job, "d/e", "e")
    else:
        os.chmod(at(job, "d/e"), 0o711)
    run_finds_damage(job)
    assert backed_up(job).exit_code == 0, "what was known before is no damage that a run meets"
    assert job.differences() == []
    assert_mended(job, first)


@pytest.mark.parametrize("alien", ["file", "symlink"])
def test_runs_go_on_when_something_else_took_a_directorys_place(job: Job, alien: str, tmp_path: Path) -> None:
    shutil.rmtree(in_mirror(job, "d/e"))
    if alien == "file":
        with open(in_mirror(job, "d/e"), "wb"):
            pass
    else:
        os.symlink(tmp_path, in_mirror(job, "d/e"))
    outside = sorted(os.listdir(tmp_path))
    assert job.run().exit_code == 0, "nothing changed there"
    assert verified(job)[0] == 4
    os.chmod(at(job, "d/e/file"), 0o600)
    os.unlink(at(job, "d/e/g/deep"))
    put(job, "d/e/new")
    assert job.run().exit_code in (0, 4)
    lost = [line for line in verified(job)[1].splitlines()[:-1] if "d/e/g/deep: as of runs 1 to" not in line]
    assert lost == [], "only what was gone before it was removed is lost to history"
    assert job.differences() == []
    assert sorted(os.listdir(tmp_path)) == outside


def test_a_link_that_points_elsewhere_and_names_of_a_pipe_are_mended(job: Job) -> None:
    os.link(at(job, "pipe"), at(job, "pipe2"))
    backed_up(job)
    for gone in ("pipe", "pipe2"):
        first = read_point(job.target, 1)
        os.unlink(in_mirror(job, "link"))
        os.symlink("/etc/passwd", in_mirror(job, "link"))
        os.unlink(in_mirror(job, gone))
        assert verified(job)[0] == 4
        run_finds_damage(job)
        assert os.lstat(in_mirror(job, "pipe")).st_ino == os.lstat(in_mirror(job, "pipe2")).st_ino
        assert job.differences() == []
        assert_mended(job, first)


@pytest.mark.parametrize("change", ["content", "removed", "renamed"])
def test_old_content_is_kept_under_whichever_name_it_still_has(job: Job, change: str) -> None:
    first = read_point(job.target, 1)
    os.unlink(in_mirror(job, "d/same"))  # the first name of `file`
    change_linked_file(job, change)
    assert job.run().exit_code in (0, 4)
    assert compare_trees(first, read_point(job.target, 1)) == []
    assert job.differences() == []


@pytest.mark.parametrize("alien", ["symlink", "directory", "file"])
@pytest.mark.parametrize("change", ["content", "removed", "renamed"])
def test_old_content_is_kept_when_one_of_its_names_was_given_to_something_else(
    job: Job, change: str, alien: str
) -> None:
    first = read_point(job.target, 1)
    os.unlink(in_mirror(job, "d/same"))  # the first name of `file`
    if alien == "symlink":
        os.symlink("/etc/passwd", in_mirror(job, "d/same"))
    elif alien == "directory":
        os.mkdir(in_mirror(job, "d/same"))
    else:
        write(in_mirror(job, "d/same"), b"ALIE")
    change_linked_file(job, change)
    assert job.run().exit_code in (0, 4)
    assert compare_trees(first, read_point(job.target, 1)) == []
    assert job.differences() == []


def test_content_taken_out_of_the_stage_harms_no_earlier_point(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_point(job.target, 1)
    write(at(job, "file"), b"FILE")  # as long as before
    os.utime(at(job, "file"), ns=(0, os.stat(in_mirror(job, "file")).st_mtime_ns + 1))
    real = arriving.set_in_place

    def robbed(work: Work, obj: int, names: list[tuple[int, bytes]], arrived: bytes) -> None:
        os.unlink(os.path.join(job.lb, arrived))
        real(work, obj, names, arrived)

    with monkeypatch.context() as patch:
        patch.setattr(arriving, "set_in_place", robbed)
        assert job.run().exit_code == 1
    run_finds_damage(job)
    assert_mended(job, first)


def test_damage_that_a_run_met_before_it_was_cut_short_counts_at_its_end(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.unlink(in_mirror(job, "d/other"))
    os.chmod(at(job, "d/other"), 0o600)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(runfile, "write", broken)
        assert job.run().exit_code == 1
    put(job, "newer")
    outcome = job.run()
    assert outcome.exit_code == 4
    with open(in_mirror(job, "newer"), "rb") as file:
        assert file.read() == b"newer", "the run that only had to be committed was followed by one that looks"
    backed_up(job)


def test_content_that_rotted_is_found_by_verifying_and_brought_by_the_next_run(job: Job) -> None:
    first = read_point(job.target, 1)
    before = os.stat(in_mirror(job, "file"))
    with open(in_mirror(job, "file"), "r+b") as file:
        file.write(b"ROT")
    os.utime(in_mirror(job, "file"), ns=(before.st_atime_ns, before.st_mtime_ns))
    backed_up_again = job.run()
    assert backed_up_again.exit_code == 0, "size and times are right: only reading tells"
    code, said = verified(job)
    assert code == 4
    assert "file: has other content than was brought" in said
    assert "'lb run job' brings 1 of its objects again" in said
    outcome = job.run()
    assert (outcome.exit_code, outcome.counts["files_copied"]) == (0, 1)
    assert verified(job)[0] == 0
    assert compare_trees(read_tree(job.source), read_tree(job.tree)) == []
    assert compare_trees(first, read_point(job.target, 1)) == [], "the damaged content did not become an old version"
    assert job.run().counts["files_copied"] == 0


def test_content_that_is_the_same_again_makes_no_version(job: Job) -> None:
    os.utime(at(job, "file"), ns=(5, 5))
    versions = {name for name in read_tree(job.lb) if name.startswith(b"versions/")}
    backed_up(job)
    assert {name for name in read_tree(job.lb) if name.startswith(b"versions/")} == versions
