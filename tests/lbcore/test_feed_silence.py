"""What no feed tells a second time, or tells at all: it is looked at all the same."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from lbcore.walk import Walker, _Directory, _Reading
from tests.support.changes import write
from tests.support.feed import Feed
from tests.support.journal import Journal
from tests.support.running import backed_up
from tests.support.source import at, put


def hinder(patch: pytest.MonkeyPatch, path: bytes) -> None:
    """The directory at ``path`` cannot be listed."""
    read = Walker._read

    def fail(self: Walker, root: object, directory: _Directory, expected: int | None) -> _Reading:
        if directory.path == path:
            return _Reading(directory, 0, error="Input/output error")
        return read(self, root, directory, expected)  # type: ignore[arg-type]

    patch.setattr(Walker, "_read", fail)


def bring_in(job: Job, path: str) -> None:
    """A directory with something in it comes from outside; a feed names nothing but itself."""
    outside = os.path.join(os.path.dirname(job.source), b"outside")
    os.makedirs(outside + b"/sub")
    write(outside + b"/sub/file", b"content")
    os.rename(outside, at(job, path))


def test_a_directory_that_a_first_scan_could_not_list_is_listed_by_the_next_run(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lb_job(Feed(), detector="feed", racy_seconds=0)
    put(job, "d/file", "d/sub/other", "e/file")
    with monkeypatch.context() as patch:
        hinder(patch, b"d")
        for _ in range(2):
            assert job.run().exit_code == 3
    backed_up(job)


def test_a_directory_that_a_scan_after_a_gap_could_not_list_is_walked_with_all_below(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed()
    job = lb_job(feed, detector="feed", racy_seconds=0)
    put(job, "d/file", "d/sub/x", "e/file")
    backed_up(job)
    put(job, "d/new", "d/sub/new")
    feed.gap = "lost"
    with monkeypatch.context() as patch:
        hinder(patch, b"d")
        assert job.run().exit_code == 3
    backed_up(job)


def test_a_directory_from_outside_that_could_not_be_listed_is_listed_by_the_next_run(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lb_job(Feed(sparse=True), detector="feed", racy_seconds=0)
    put(job, "e/file")
    backed_up(job)
    bring_in(job, "moved")
    with monkeypatch.context() as patch:
        hinder(patch, b"moved")
        assert job.run().exit_code == 3
    backed_up(job)


def test_a_directory_that_moves_before_it_is_listed_is_listed_by_the_next_run(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lb_job(Feed(sparse=True), detector="feed", racy_seconds=0)
    put(job, "e/file", "k/file")
    backed_up(job)
    bring_in(job, "e/moved")
    walk = Walker.walk

    def meddle(self: Walker, path: bytes, *arguments: object) -> object:
        if path == b"e/moved" and os.path.lexists(at(job, "e/moved")):
            os.rename(at(job, "e/moved"), at(job, "k/moved"))
        return walk(self, path, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Walker, "walk", meddle)
        job.run()
    backed_up(job)


def test_a_job_that_scanned_so_far_scans_once_more_when_it_begins_to_follow_a_feed(
    lb_job: Callable[..., Job], tmp_path: Path
) -> None:
    job = lb_job(Journal(str(tmp_path / "journal")), detector="scan", racy_seconds=0)
    put(job, "a", "b")
    backed_up(job)
    put(job, "c")  # before anything was recorded
    job.configure(detector="journal")
    outcome = job.run()
    assert (outcome.exit_code, job.differences()) == (5, [])
    backed_up(job)


def test_what_a_plugin_warns_of_stands_in_the_log_of_the_run(lb_job: MakeJob) -> None:
    feed = Feed()
    job = lb_job(feed, detector="feed")
    put(job, "a")
    backed_up(job)
    feed.meddle = lambda count: logging.getLogger("lb_somebody").warning("looked %d times", count)
    put(job, "b")
    outcome = backed_up(job)
    assert "WARNING looked 1 times" in job.log(outcome.run)
