"""What a user calls a point in time, and a path in it."""

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from lbcore.catalog.catalog import Catalog
from lbcore.errors import UsageError
from lbcore.points import find_place, find_point, inside_path, local_time, parse_time
from lbcore.testing import MakeJob
from tests.support.commands import back_up


@pytest.fixture(autouse=True)
def vienna(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc(text: str) -> int:
    """A time in UTC, in ns."""
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()) * 10**9


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """Runs at several times of 2026; the last is not finished."""
    runs = [
        ("committed", "2026-03-01 02:00:00"),
        ("committed", "2026-03-02 02:00:00"),
        ("braked", "2026-03-03 02:00:00"),
        ("committed", "2026-10-25 00:15:00"),  # 02:15 by summer time
        ("committed", "2026-10-25 01:15:00"),  # 02:15 by winter time
        ("committed", "2026-10-25 03:00:00"),
        ("applying", "2026-10-26 03:00:00"),
    ]
    with contextlib.closing(Catalog.open(os.fsencode(tmp_path / "job.db"))) as opened:
        for state, at in runs:
            with opened.database.transaction():
                number = opened.runs.begin(utc(at))
                opened.runs.update(number, state=state, view_from_ns=utc(at) - 1, view_to_ns=utc(at))
        yield opened


def test_the_last_complete_run_is_the_latest_point_in_time(catalog: Catalog) -> None:
    assert find_point(catalog, "latest").run == 6


def test_a_number_is_a_run(catalog: Catalog) -> None:
    assert find_point(catalog, "2").run == 2


@pytest.mark.parametrize("number", ["0", "8", "99999999999999999999"])
def test_a_run_that_does_not_exist_is_refused_with_what_there_is(catalog: Catalog, number: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_point(catalog, number)
    assert str(refused.value) == (
        f"there is no run {number}; there are runs 1 to 2, 4 to 6, from 2026-03-01 03:00:00 to 2026-10-25 04:00:00 "
        "('lb runs' lists them)"
    )


@pytest.mark.parametrize(("number", "state"), [("3", "braked"), ("7", "applying")])
def test_a_run_that_was_not_completed_is_no_point_in_time(catalog: Catalog, number: str, state: str) -> None:
    with pytest.raises(UsageError, match=f"run {number} is no point in time, its state is '{state}'; there are runs 1"):
        find_point(catalog, number)


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("2026-03-01T03:00:00", 1),
        ("2026-03-01T03:00", 1),
        ("2026-03-01 03:00", 1),
        ("2026-03-01", 1),
        ("2026-03-02T02:59:59", 1),
        ("2026-03-02T02:59", 1),
        ("2026-03-02T03:00:00", 2),
        ("2026-03-02", 2),
        ("2026-03-03", 2),
        ("2026-03-02T02:00:00Z", 2),
        ("2026-03-02T01:59:59+00:00", 1),
        ("2026-03-01T20:59:59.999-05:00", 1),
        ("2026-03-01T21:00:00-05:00", 2),
        ("2030-01-01", 6),
    ],
)
def test_a_time_means_the_newest_point_in_time_that_is_not_younger(catalog: Catalog, text: str, run: int) -> None:
    assert find_point(catalog, text).run == run


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("2026-10-25T01:59", 2),
        ("2026-10-25T02:30", 5),  # this time comes twice: the second one is meant
        ("2026-10-25T02:30+02:00", 4),
        ("2026-10-25T02:30+01:00", 5),
        ("2026-10-25T02:14:59+01:00", 4),
        ("2026-10-25T03:59", 5),
        ("2026-10-25", 6),
    ],
)
def test_an_hour_that_comes_twice_means_its_second_time_unless_an_offset_says_otherwise(
    catalog: Catalog, text: str, run: int
) -> None:
    assert find_point(catalog, text).run == run


def test_an_hour_that_is_skipped_is_the_one_after_it() -> None:
    assert parse_time("2026-03-29T02:30:00") == utc("2026-03-29 01:30:00") + 999_999_999
    assert parse_time("2026-03-29") == utc("2026-03-29 21:59:59") + 999_999_999


def test_a_time_that_was_printed_finds_its_run(catalog: Catalog) -> None:
    for number in (1, 2, 5, 6):
        run = find_point(catalog, str(number))
        assert run.view_to_ns is not None
        assert find_point(catalog, local_time(run.view_to_ns + 123_456_789)).run == number


def test_a_time_before_the_first_point_is_refused_with_what_there_is(catalog: Catalog) -> None:
    with pytest.raises(UsageError, match="no point in time as old as 2026-02-28; there are runs 1 to 2, 4 to 6"):
        find_point(catalog, "2026-02-28")


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "2026-13-01", "2026-02-30", "2026-03-01T25:00", "20260301T10",
                                  "2026-03-01T10:00x", "0000-01-01", "٣", "3\n"])  # fmt: skip
def test_what_is_no_point_in_time_is_refused_with_an_example(catalog: Catalog, text: str) -> None:
    with pytest.raises(UsageError, match="2026-03-01T18:30"):
        find_point(catalog, text)


def test_without_a_complete_run_there_is_no_point_in_time(tmp_path: Path) -> None:
    with contextlib.closing(Catalog.open(os.fsencode(tmp_path / "empty.db"))) as empty:
        with pytest.raises(UsageError, match="no point in time yet"):
            find_point(empty, "latest")
        with pytest.raises(UsageError, match="there is no run 1; no run of this job is complete yet"):
            find_point(empty, "1")


@pytest.mark.parametrize(
    ("given", "inside"),
    [
        (b".", b""),
        (b"./", b""),
        (b"a", b"a"),
        (b"./a//b/", b"a/b"),
        (b"a/./b", b"a/b"),
        (b"/data/source", b""),
        (b"/data/source/", b""),
        (b"/data//source/./a/b/", b"a/b"),
        (b"\xff\n/b", b"\xff\n/b"),
        (b"...", b"..."),
    ],
)
def test_a_path_is_relative_to_the_source_however_it_is_written(given: bytes, inside: bytes) -> None:
    assert inside_path(given, b"/data/source") == inside


def test_every_absolute_path_lies_below_the_root() -> None:
    assert inside_path(b"/etc/fstab", b"/") == b"etc/fstab"


@pytest.mark.parametrize("given", [b"..", b"a/../b", b"/data/source/..", b"../source/a"])
def test_a_way_up_is_refused(given: bytes) -> None:
    with pytest.raises(UsageError, match=r"'\.\.' is not allowed"):
        inside_path(given, b"/data/source")


@pytest.mark.parametrize("given", [b"/data", b"/data/source2/a", b"/"])
def test_an_absolute_path_outside_of_the_source_is_refused(given: bytes) -> None:
    with pytest.raises(UsageError, match="does not lie below the job's source /data/source"):
        inside_path(given, b"/data/source")


def test_a_path_is_looked_up_in_the_point_in_time(lb_job: MakeJob) -> None:
    job = lb_job()
    os.makedirs(job.source + b"/a/b")
    Path(os.fsdecode(job.source), "a/b/f").touch()
    os.symlink("a", job.source + b"/link")
    first = back_up(job)
    os.rename(job.source + b"/a", job.source + b"/c")
    second = back_up(job)

    with job.catalog() as opened:
        before = find_place(opened, first, b"a/b/f")
        assert before.row.obj == find_place(opened, second, b"c/b/f").row.obj
        assert find_place(opened, second, b"").row.obj == 1
        with pytest.raises(UsageError, match=f"a/b/f is not in the backup at run {second} "):
            find_place(opened, second, b"a/b/f")
        with pytest.raises(UsageError, match="link is a symbolic link to a"):
            find_place(opened, first, b"link/b/f")
        with pytest.raises(UsageError, match="a/b/f is not a directory"):
            find_place(opened, first, b"a/b/f/g")
