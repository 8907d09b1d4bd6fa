"""``lb run --dry-run`` follows the feed where a run would, and changes nothing."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lbcore import hookimpl
from lbcore.alone import collect_alone
from lbcore.builtin.scan import Scan
from lbcore.errors import TargetError
from lbcore.plugins.types import DetectorPlugin
from lbcore.run import catalog_path
from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from tests.lbcore.test_collect import id_of
from tests.support.changes import write
from tests.support.feed import Feed
from tests.support.journal import Journal
from tests.support.running import backed_up, run_well
from tests.support.source import at, put

GAP = "records 3 to 5 are missing"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "journal"))


@pytest.fixture
def job(journal: Journal, lb_job: MakeJob) -> Job:
    """A backup whose feed tells of one of two files that have changed since."""
    job = lb_job(journal, detector="journal", racy_seconds=0)
    put(job, "told", "untold")
    backed_up(job)
    for name in ("told", "untold"):
        write(at(job, name), b"another content")
    journal.add(id_of(job, b"told"))
    return job


def catalog_of(job: Job) -> list[str]:
    with contextlib.closing(sqlite3.connect(catalog_path(job.config).decode())) as database:
        return list(database.iterdump())


def planned(job: Job, *options: str) -> dict[str, Any]:
    (said,) = json.loads(job.command("run", "--dry-run", "--json", *options).stdout)["jobs"]
    assert isinstance(said, dict)
    return said


def changed(job: Job, *options: str) -> tuple[int, str | None]:
    """How many objects a run would change, and why everything was looked at."""
    said = planned(job, *options)
    assert (said["objects_new"], said["objects_removed"], said["exit_code"]) == (0, 0, 0)
    return said["objects_changed"], said["scan"]


def test_what_the_feed_tells_is_looked_at_and_nothing_else_and_the_feed_keeps_it(job: Job, journal: Journal) -> None:
    catalog, records = catalog_of(job), journal.records()
    for _ in range(2):
        assert changed(job) == (1, None)
        assert "the feed was followed" in job.command("run", "--dry-run").stdout
    assert (catalog_of(job), journal.records()) == (catalog, records)
    assert run_well(job).counts["objects_changed"] == 1
    assert changed(job) == (0, None)


def test_what_is_only_read_once_more_is_counted_and_not_listed(lb_job: MakeJob) -> None:
    job = lb_job(racy_seconds=3600)
    put(job, "one", "two", "three")
    backed_up(job)
    write(at(job, "two"), b"another content")
    listed = job.command("run", "--dry-run").stdout
    assert listed.startswith("content    two\njob: would make 0, change 1 and remove 0 objects")
    assert "would compare 2 more" in listed
    assert planned(job)["objects_compared"] == 2


def test_what_was_collected_before_is_looked_at_too(job: Job, journal: Journal) -> None:
    assert collect_alone(job.config) is not None
    assert journal.records() == []
    journal.add(id_of(job, b"untold"))
    assert changed(job) == (2, None)
    assert run_well(job).counts["objects_changed"] == 2


def test_a_feed_with_a_gap_is_not_followed_and_the_gap_is_not_used_up(job: Job, journal: Journal) -> None:
    journal.lose(GAP)
    catalog = catalog_of(job)
    for _ in range(2):
        assert changed(job) == (2, f"the feed has a gap: {GAP}")
    assert f"everything was looked at: the feed has a gap: {GAP}" in job.command("run", "--dry-run").stdout
    assert catalog_of(job) == catalog
    outcome = job.run()
    assert (outcome.exit_code, outcome.counts["objects_changed"]) == (5, 2)
    assert changed(job) == (0, None)


def test_a_gap_that_was_collected_is_seen_without_reading_the_feed(job: Job, journal: Journal) -> None:
    journal.lose(GAP)
    assert collect_alone(job.config) is not None
    assert changed(job) == (2, f"the feed has a gap: {GAP}")


def test_a_run_that_would_scan_is_planned_by_a_scan_which_says_why(job: Job, journal: Journal) -> None:
    assert changed(job, "--full") == (2, "a full run is asked for")
    job.configure(exclude=["*.tmp"])
    assert changed(job) == (2, "what the job covers has changed")
    job.configure(exclude=None, detector="scan")
    assert changed(job) == (2, "the job's detector has no feed")


def test_the_first_run_is_planned_by_a_scan(journal: Journal, lb_job: MakeJob) -> None:
    job = lb_job(journal, detector="journal")
    put(job, "a")
    said = planned(job)
    assert (said["objects_new"], said["scan"]) == (2, "there is no backup yet")


def test_a_feed_that_breaks_off_is_an_error_as_in_a_run_and_nothing_is_changed(job: Job, journal: Journal) -> None:
    journal.add(id_of(job, b"untold"))
    journal.break_after = 1
    catalog, records = catalog_of(job), journal.records()
    with pytest.raises(TargetError):
        job.plan()
    assert (catalog_of(job), journal.records()) == (catalog, records)
    assert job.run().exit_code == 1


class _Unpeekable(Scan):
    """Has a feed that only collecting shows."""

    complete = False


class Unpeekable:
    @hookimpl
    def lb_register_detectors(self) -> Iterable[DetectorPlugin]:
        yield DetectorPlugin(name="unpeekable", summary="for tests", create=lambda options: _Unpeekable())


def test_a_detector_that_cannot_be_asked_without_a_change_is_not_asked(lb_job: MakeJob) -> None:
    job = lb_job(Unpeekable(), detector="unpeekable")
    put(job, "a")
    assert job.run().exit_code == 0
    write(at(job, "a"), b"another content")
    assert changed(job) == (1, "the feed of the job's detector cannot be read without being changed")


@pytest.mark.parametrize("seed", range(3))
def test_a_run_does_what_was_announced(lb_job: MakeJob, seed: int) -> None:
    job = lb_job(Feed(seed=seed), detector="feed", max_delete="100%", racy_seconds=0)
    put(job, "d/a", "d/b", "e/f/g", "h")
    backed_up(job)
    for old, new in (("d", "e/d"), ("h", "e/f/h")):
        Path(at(job, old).decode()).rename(at(job, new).decode())
    Path(at(job, "e/d/a").decode()).unlink()
    put(job, "new/x", "e/f/g")
    announced = planned(job)
    assert announced["scan"] is None
    counts = backed_up(job).counts
    for key in ("objects_new", "objects_changed", "objects_removed"):
        assert counts[key] == announced[key], key
