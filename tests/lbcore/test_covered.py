"""What a job covers: patterns, mounts, one filesystem."""

from __future__ import annotations

import os

import pytest

from lbcore.testing import MakeJob, read_tree
from tests.support.feed import Feed
from tests.support.running import backed_up, both_detectors, covered, mounted, needs_root, problems, run_well
from tests.support.source import at, move, put


@both_detectors
def test_patterns_exclude_and_include_as_gitignore_does_and_changing_them_adds_and_removes(
    lb_job: MakeJob, detector: str
) -> None:
    job = lb_job(Feed(), detector=detector, exclude=["*.o", "!keep.o", "/d/cache/", "tmp"], include=["last.o"])
    put(job, "a.o", "keep.o", "last.o", "d/a.o", "d/cache/x", "e/d/cache/x", "e/tmp/x/y", "tmp", "x")
    everything = sorted(read_tree(job.source).keys() - {b""})
    run_well(job)
    few = [b"d", b"e", b"e/d", b"e/d/cache", b"e/d/cache/x", b"keep.o", b"last.o", b"x"]
    assert covered(job) == few
    job.configure(exclude=["*.o"], include=[])
    run_well(job)
    assert covered(job) == [path for path in everything if not path.endswith(b".o")]
    job.configure(exclude=[])
    backed_up(job)
    job.configure(exclude=["e", "\\#*", "*\xff*"], max_delete="100%")
    put(job, b"#x", b"\xff", b"two\nlines")
    run_well(job)
    assert covered(job) == sorted({path for path in everything if not path.startswith(b"e")} | {b"\xff", b"two\nlines"})


@both_detectors
def test_a_rename_that_takes_something_in_or_out_of_what_is_covered_is_seen(lb_job: MakeJob, detector: str) -> None:
    job = lb_job(Feed(), detector=detector, exclude=["/x/tmp", "old*"], max_delete="100%")
    put(job, "a/tmp/f", "a/g", "deep/a/tmp/h")
    for path, _, names in os.walk(job.source):  # so old that the directories are not listed again for being new
        for name in names:
            os.utime(os.path.join(path, name), ns=(0, 0))
    backed_up(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lbcore.builtin.scan._RACY_SECONDS", -1000)
        run_well(job)
        move(job, "a", "x")
        run_well(job)
        assert covered(job) == [b"deep", b"deep/a", b"deep/a/tmp", b"deep/a/tmp/h", b"x", b"x/g"]
        move(job, "x", "a")
        backed_up(job)
        move(job, "a", "old a")
        run_well(job)
        assert covered(job) == [b"deep", b"deep/a", b"deep/a/tmp", b"deep/a/tmp/h"]
        move(job, "old a", "a")
        backed_up(job)


@both_detectors
def test_a_rename_that_takes_something_under_an_included_path_or_out_of_it_is_seen(
    lb_job: MakeJob, detector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lb_job(Feed(), detector=detector, exclude=["*.o"], include=["/keep/**/*.o"], max_delete="100%")
    put(job, "other/sub/deep/x.o", "other/y.c", "other/z.o")
    for path, _, names in os.walk(job.source):  # so old that the directories are not listed again for being new
        for name in names:
            os.utime(os.path.join(path, name), ns=(0, 0))
    monkeypatch.setattr("lbcore.builtin.scan._RACY_SECONDS", -1000)
    run_well(job)
    move(job, "other", "keep")
    run_well(job)
    kept = [b"keep", b"keep/sub", b"keep/sub/deep", b"keep/sub/deep/x.o", b"keep/y.c", b"keep/z.o"]
    assert covered(job) == kept
    move(job, "keep", "other")
    run_well(job)
    assert covered(job) == [b"other", b"other/sub", b"other/sub/deep", b"other/y.c"]


@needs_root
def test_what_is_mounted_below_the_source_is_covered_and_kept_while_it_is_not_mounted(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%")
    put(job, "a", "mnt/below")
    with mounted(at(job, "mnt")):
        put(job, "mnt/b", "mnt/d/c")
        backed_up(job)
        os.rename(at(job, "mnt/b"), at(job, "mnt/d/b"))
        backed_up(job)
    before = read_tree(job.tree)
    put(job, "new")
    outcome = job.run()
    assert outcome.exit_code == 3
    assert "mounted" in problems(job, outcome.run)[b"mnt"]
    assert read_tree(job.tree).keys() == before.keys() | {b"new"}
    job.configure(exclude=["mnt"])
    run_well(job)
    assert covered(job) == [b"a", b"new"]
    job.configure(exclude=[])
    backed_up(job)


@needs_root
def test_one_filesystem_leaves_out_what_is_mounted_and_may_be_changed_later(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%", one_filesystem=True)
    put(job, "a")
    os.mkdir(at(job, "mnt"))
    with mounted(at(job, "mnt")):
        put(job, "mnt/b", "mnt/d/c")
        run_well(job)
        assert covered(job) == [b"a", b"mnt"]
        job.configure(one_filesystem=False)
        backed_up(job)
        job.configure(one_filesystem=True)
        run_well(job)
        assert covered(job) == [b"a", b"mnt"]
    backed_up(job)
