"""The mirror is not what the catalog says: somebody took something away, or it rotted. Runs say so, and mend it."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from lbcore.testing import MakeJob, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.commands import call, configuration
from tests.support.points import read_point
from tests.support.running import backed_up
from tests.support.source import at, put


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
