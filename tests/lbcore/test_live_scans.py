"""A live tree changes while it is looked at: what moves past a scan, or a feed, is not lost."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from lbcore import _posix, hookimpl, walk
from lbcore.builtin.scan import Scan
from lbcore.model import Hint, Listing, Seen, View
from lbcore.plugins.types import DetectorPlugin, Known
from lbcore.scope import Scope
from lbcore.testing import MakeJob, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import exchange
from tests.support.feed import Feed
from tests.support.running import backed_up, covered, problems, run_well
from tests.support.source import at, move, put


class Meddler:
    """A plugin with the detector ``meddling``: a scan that calls a function after a directory was listed."""

    def __init__(self) -> None:
        self.after: dict[bytes, Callable[[], Any]] = {}

    @hookimpl
    def lb_register_detectors(self) -> Iterable[DetectorPlugin]:
        yield DetectorPlugin(name="meddling", summary="a scan for tests", create=lambda options: MeddlingScan(self))


class MeddlingScan(Scan):
    def __init__(self, meddler: Meddler) -> None:
        super().__init__()
        self.meddler = meddler

    def observe(self, view: View, scope: Scope, known: Known, hints: Iterable[Hint]) -> Iterator[Seen]:
        for one in super().observe(view, scope, known, hints):
            yield one
            if isinstance(one, Listing) and one.path in self.meddler.after:
                self.meddler.after.pop(one.path)()


@pytest.fixture
def meddler() -> Meddler:
    return Meddler()


@pytest.fixture
def job(lb_job: MakeJob, meddler: Meddler) -> Job:
    return lb_job(meddler, detector="meddling", max_delete="100%")


def test_a_new_directory_is_removed_after_it_was_listed(job: Job, meddler: Meddler) -> None:
    put(job, "d/x", "d/sub/y", "e/z")
    meddler.after[b"d/sub"] = lambda: shutil.rmtree(at(job, "d"))
    run_well(job)
    assert not meddler.after
    assert covered(job) == [b"e", b"e/z"]
    backed_up(job)


def test_a_directory_that_got_new_files_is_removed_after_it_was_listed(job: Job, meddler: Meddler) -> None:
    put(job, "d/x", "e/y")
    backed_up(job)
    put(job, "d/new", "d/sub/new")
    meddler.after[b"d/sub"] = lambda: shutil.rmtree(at(job, "d"))
    run_well(job)
    assert not meddler.after
    assert covered(job) == [b"e", b"e/y"]
    backed_up(job)


def test_a_file_is_moved_into_a_new_directory_which_is_removed_after_it_was_listed(job: Job, meddler: Meddler) -> None:
    put(job, "e/y")
    backed_up(job)
    os.mkdir(at(job, "n"))
    move(job, "e/y", "n/y")
    meddler.after[b"n"] = lambda: shutil.rmtree(at(job, "n"))
    run_well(job)
    assert not meddler.after
    assert covered(job) == [b"e"]
    backed_up(job)


@pytest.mark.parametrize("when", ["", "a", "b", "a/x", "b/y"])
@pytest.mark.parametrize("known", [False, True])
def test_a_directory_that_moves_past_the_scan_is_not_lost(job: Job, meddler: Meddler, when: str, known: bool) -> None:
    put(job, "a/x/f", "b/y/g")
    if known:
        backed_up(job)
        put(job, "a/x/new")

    def swap() -> None:
        move(job, "a/x", "tmp")
        move(job, "b/y", "a/x")
        move(job, "tmp", "b/y")

    meddler.after[os.fsencode(when)] = swap
    outcome = run_well(job)
    assert not meddler.after
    assert outcome.counts["objects_removed"] == 0
    assert compare_trees(job.source, job.tree, ignore=["mtime_ns"]) == []
    backed_up(job)


def test_link_targets_and_xattrs_are_not_taken_from_what_has_the_path_by_then(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two directories swap after one was listed: the paths of what is in them lead to other objects."""
    job = lb_job(max_delete="100%")
    for folder in ("p", "q"):
        put(job, f"{folder}/d/file")
        os.symlink(f"target in {folder}", at(job, f"{folder}/d/link"))
        os.setxattr(at(job, f"{folder}/d/file"), "user.x", folder.encode())
    report = walk.Walker._report
    swapped: list[bool] = []

    def swap_and_report(walker: walk.Walker, reading: Any, again: bool) -> Iterator[Any]:
        if reading.directory.path == b"p/d" and not swapped:
            swapped.append(True)
            exchange(at(job, "p"), at(job, "q"))
        return report(walker, reading, again)

    with monkeypatch.context() as patch:
        patch.setattr(walk.Walker, "_report", swap_and_report)
        assert job.run().exit_code in (0, 3)
    assert swapped
    backed_up(job)


def test_a_directory_that_never_holds_still_loses_nothing(
    job: Job, meddler: Meddler, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.configure(racy_seconds=0)
    put(job, "a/x/f", "b/g")
    backed_up(job)
    changed = walk.Walker._changed_since_read

    def change_and_look(walker: walk.Walker) -> Any:
        for path in ("", "a", "b"):
            os.utime(at(job, path))
        return changed(walker)

    outside = job.source + b"-outside"
    os.rename(at(job, "a/x"), outside)
    monkeypatch.setattr(walk.Walker, "_changed_since_read", change_and_look)
    outcome = job.run()
    assert outcome.exit_code == 3
    assert problems(job, outcome.run) == dict.fromkeys([b"", b"a", b"b"], "kept changing while it was listed")
    assert b"a/x/f" in read_tree(job.tree)
    monkeypatch.undo()
    os.rename(outside, at(job, "b/x"))
    backed_up(job)


def test_runs_while_directories_move_back_and_forth_lose_nothing_and_converge(lb_job: MakeJob) -> None:
    job = lb_job()
    for number in range(30):
        put(job, *(f"{number}/{name}/{file}" for name in "ab" for file in range(3)))
    backed_up(job)
    objects = len(read_tree(job.source))
    stop = threading.Event()

    def churn() -> None:
        for step in itertools.count():
            one, other = step * 7 % 30, step * 11 % 30
            with contextlib.suppress(OSError):
                move(job, f"{one}/a", f"{other}/moved {step}")
                # Breathe, so that between two moves a directory can be read at all.
                stop.wait(0.002)
                move(job, f"{other}/moved {step}", f"{one}/a")
            if stop.is_set():
                return

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        outcomes = [job.run() for _ in range(8)]
    finally:
        stop.set()
        thread.join()
    assert {outcome.exit_code for outcome in outcomes} <= {0, 3}, outcomes
    assert len(read_tree(job.source)) == objects
    assert sum(outcome.counts["objects_removed"] for outcome in outcomes) == 0
    backed_up(job)


def test_what_a_feed_forgot_to_mention_does_not_go_with_its_directory(lb_job: MakeJob) -> None:
    feed = Feed()
    job = lb_job(feed, detector="feed", racy_seconds=0)
    put(job, "d/file", "d/sub/other", "e/x")
    backed_up(job)
    moved = {_posix_id(at(job, path)) for path in ("d/file", "d/sub")}
    feed.forgets = lambda object_id: object_id in moved
    move(job, "d/file", "e/file")
    move(job, "d/sub", "e/sub")
    os.rmdir(at(job, "d"))
    outcome = backed_up(job)
    assert (outcome.counts["objects_removed"], outcome.counts["files_copied"]) == (1, 0)


def test_an_object_that_a_feed_named_and_that_could_not_be_looked_at_is_tried_again(lb_job: MakeJob) -> None:
    feed = Feed()
    job = lb_job(feed, detector="feed", racy_seconds=0)
    put(job, "d/file", "d/other")
    backed_up(job)
    hidden = _posix_id(at(job, "d/file"))
    feed.unreadable = lambda object_id: object_id == hidden
    for path in ("d/file", "d/other"):
        os.chmod(at(job, path), 0o600)
    for _ in range(2):  # the feed names it once only
        outcome = job.run()
        assert outcome.exit_code == 3
        assert problems(job, outcome.run)[hidden.hex().encode()] == "not today"
    feed.unreadable = lambda object_id: False
    backed_up(job)


def _posix_id(path: bytes) -> bytes:
    fd = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        return _posix.look(fd, os.path.basename(path))[0]
    finally:
        os.close(fd)


@pytest.mark.parametrize("when", range(1, 10))
def test_a_directory_that_moves_while_a_feed_is_followed_is_not_lost(lb_job: MakeJob, when: int) -> None:
    feed = Feed()
    job = lb_job(feed, detector="feed", max_delete="100%")
    put(job, "a/x/f", "a/x/y/g", "b/h", "c/a")
    backed_up(job)
    feed.observed.clear()
    for path, _, _ in os.walk(job.source):
        os.chmod(path, 0o751)
    move(job, "a/x/y", "c/y")
    put(job, "a/x/new", "a/z/new")

    def meddle(count: int) -> None:
        if count == when:
            move(job, "a/x", "b/x")
            move(job, "c/y", "b/x/y")
            move(job, "a/z", "a/x")

    feed.meddle = meddle
    outcome = job.run()
    assert outcome.exit_code in (0, 3)
    feed.meddle = lambda count: None
    assert not os.path.lexists(at(job, "a/z"))
    backed_up(job)
