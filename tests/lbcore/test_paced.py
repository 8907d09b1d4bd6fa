"""Where the core lists directories, it keeps to the pace that the job's detector knows."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from lbcore import hookimpl
from lbcore.builtin import scan
from lbcore.model import Listing, ObjectId, View
from lbcore.observing import Nothing
from lbcore.plugins.types import DetectorPlugin, Pacing
from lbcore.progress import Progress
from lbcore.run import JobRun, Options
from lbcore.scope import Scope
from lbcore.source import look_at_root
from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from lbcore.walk import Walker
from tests.support.feed import Feed, _Detector
from tests.support.running import backed_up, mounted, needs_root
from tests.support.source import at, put

AROUND = 3
"""What a directory counts besides its entries."""


class SlowFeed(Feed):
    """A feed whose filesystem is not to be asked too fast."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[ObjectId] = Counter()
        self.calls: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    @hookimpl
    def lb_register_detectors(self) -> Iterable[DetectorPlugin]:
        yield DetectorPlugin(name="feed", summary="a slow feed for tests", create=lambda options: _Slow(self))

    def wait(self, object_id: ObjectId, operations: int) -> None:
        with self._lock:
            self.asked[object_id] += operations
        self.calls()


class _Slow(_Detector):
    def pace(self, view: View) -> Pacing | None:
        assert isinstance(self._feed, SlowFeed)
        return self._feed.wait


def asked(feed: SlowFeed, job: Job, *paths: str) -> list[int]:
    """What was asked of directories since the last call."""
    found = [feed.asked.pop(look_at_root(at(job, path))[0]) for path in paths]
    assert not feed.asked
    return found


def settled(job: Job, *paths: str) -> None:
    """Nothing in the tree is so young that it is read twice."""
    youngest = max(os.stat(at(job, path)).st_ctime_ns for path in paths)
    while time.time_ns() < youngest + 50_000_000:
        time.sleep(0.01)


def test_each_directory_and_each_look_at_what_is_in_it_counts(lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_RACY_SECONDS", 0)  # what is young is read again by the next run
    feed = SlowFeed()
    job = lb_job(feed, detector="feed", racy_seconds=0)
    put(job, "d/one", "d/two", "d/e/three", "file")
    settled(job, ".", "d", "d/e")
    backed_up(job)
    # What is new is asked for its extended attributes, too; and the directory again, whether it is as it was.
    assert asked(feed, job, ".", "d", "d/e") == [AROUND + 2 * count + AROUND for count in (2, 3, 1)]
    backed_up(job, full=True)
    assert asked(feed, job, ".", "d", "d/e") == [AROUND + 2 * count + AROUND for count in (2, 3, 1)]
    feed.gap = "records are missing"
    assert job.run().exit_code == 5
    assert asked(feed, job, ".", "d", "d/e") == [AROUND + count + AROUND for count in (2, 3, 1)], "nothing is new"
    backed_up(job)
    assert not feed.asked, "only the detector looked"
    put(job, "d/f/four")
    settled(job, "d/f")
    backed_up(job)
    assert asked(feed, job, "d/f") == [AROUND + 2 * 1 + AROUND]
    job.plan()
    assert not feed.asked


@needs_root
def test_what_is_mounted_below_the_source_has_its_own_servers(lb_job: MakeJob) -> None:
    feed = SlowFeed()
    job = lb_job(feed, detector="feed", racy_seconds=0)
    put(job, "mount/hidden")
    with mounted(at(job, "mount")):
        put(job, "mount/d/file")
        settled(job, ".", "mount", "mount/d")
        backed_up(job)
        assert asked(feed, job, ".") == [AROUND + 2 * 1 + AROUND]


def test_a_run_that_is_to_pause_does_not_wait_for_its_turn_any_more(lb_job: MakeJob) -> None:
    feed = SlowFeed()
    job = lb_job(feed, detector="feed", racy_seconds=0)
    put(job, *(f"d/{number}" for number in range(1000)))
    run = JobRun(job.config, job.plugins, Options(), Progress(), lambda: sum(feed.asked.values()) > 100).run()
    assert run.exit_code == 75
    assert sum(feed.asked.values()) < 200
    feed.asked.clear()
    feed.calls = feed.asked.clear
    backed_up(job)


def test_a_walk_that_is_given_up_leaves_nobody_waiting(lb_job: MakeJob) -> None:
    """One worker reads sixteen directories at a time; it waits before the seventeenth."""
    feed = SlowFeed()
    job = lb_job(feed, detector="feed")
    put(job, *(f"{number}/{name}" for number in range(40) for name in range(20)))
    root, _ = look_at_root(job.source)
    view = View(root=job.source, stable=True)

    def hold() -> None:
        while len(feed.asked) > 17 and not walker._given_up:
            time.sleep(0.001)

    feed.calls = hold
    walker = Walker(view, Scope(), Nothing(seed=1), racy_seconds=0, workers=1, pacing=feed.wait)
    walk = walker.walk(b"", root)
    seen = [next(walk), next(walk)]
    assert all(isinstance(one, Listing) for one in seen)
    while len(feed.asked) < 18:
        time.sleep(0.001)
    walk.close()  # type: ignore[attr-defined]
    assert len(feed.asked) == 18
    assert sorted(feed.asked.values())[0] == AROUND, "what it waited for was the last that it asked"
