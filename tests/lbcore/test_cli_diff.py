"""``lb diff``: what changed between two points in time."""

import os
import shutil
from pathlib import Path

import pytest

from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from tests.support.commands import back_up, json_of, lb, output


@pytest.fixture
def job(lb_job: MakeJob) -> Job:
    return lb_job(max_delete="100%")


@pytest.fixture
def source(job: Job) -> Path:
    return Path(os.fsdecode(job.source))


def found(job: Job, older: str = "1", newer: str = "2", *, directories: bool = False) -> list[tuple[str, ...]]:
    """(path, changes, old path if there is one), without directories whose time changed with their content."""
    return [
        (row["path"], ",".join(row["change"]), *([row["old_path"]] if row["old_path"] else []))
        for row in json_of(job, "diff", older, newer)
        if directories or row["kind"] != "directory" or row["change"] != ["attributes"]
    ]


def test_every_kind_of_change_is_named(job: Job, source: Path) -> None:
    (source / "d/sub").mkdir(parents=True)
    for name in ("same", "edited", "gone", "renamed", "both", "mode", "linked", "unlinked", "d/sub/inside", "type"):
        (source / name).write_text(name)
    os.link(source / "unlinked", source / "unlinked-too")
    os.symlink("here", source / "link")
    back_up(job)
    (source / "edited").write_text("something else")
    (source / "gone").unlink()
    (source / "renamed").rename(source / "d/new-name")
    (source / "both").rename(source / "both-new")
    (source / "both-new").write_text("edited too")
    (source / "mode").chmod(0o700)
    os.link(source / "linked", source / "linked-too")
    (source / "unlinked-too").unlink()
    (source / "d").rename(source / "e")
    (source / "link").unlink()
    os.symlink("there", source / "link")
    (source / "type").unlink()
    (source / "type").mkdir()
    (source / "fresh").write_text("fresh")
    back_up(job)

    assert found(job) == [
        ("both-new", "renamed,content", "both"),
        ("e", "renamed,attributes", "d"),
        ("e/new-name", "renamed", "renamed"),
        ("edited", "content"),
        ("fresh", "new"),
        ("gone", "removed"),
        ("link", "removed"),
        ("link", "new"),
        ("linked-too", "linked"),
        ("mode", "attributes"),
        ("type", "removed"),
        ("type", "new"),
        ("unlinked-too", "unlinked"),
    ]


def test_a_renamed_directory_is_one_line_whatever_it_holds(job: Job, source: Path) -> None:
    (source / "d").mkdir()
    for number in range(20):
        (source / f"d/{number}").touch()
    back_up(job)
    (source / "d").rename(source / "e")
    back_up(job)

    assert found(job) == [("e", "renamed", "d")]


def test_what_was_renamed_in_a_renamed_directory_shows_both_full_paths(job: Job, source: Path) -> None:
    (source / "d").mkdir()
    (source / "d/old").touch()
    back_up(job)
    (source / "d/old").rename(source / "d/new")
    (source / "d").rename(source / "e")
    back_up(job)

    assert found(job) == [("e", "renamed,attributes", "d"), ("e/new", "renamed", "d/old")]


def test_what_made_room_is_listed_before_what_took_its_place_in_both_directions(job: Job, source: Path) -> None:
    (source / "thing").touch()
    back_up(job)
    (source / "thing").unlink()
    (source / "thing").mkdir()
    back_up(job)

    for older, newer in (("1", "2"), ("2", "1")):
        assert found(job, older, newer) == [("thing", "removed"), ("thing", "new")]


def test_backwards_it_is_the_reverse(job: Job, source: Path) -> None:
    (source / "old").write_text("one")
    (source / "gone").touch()
    back_up(job)
    (source / "old").rename(source / "new")
    (source / "gone").unlink()
    (source / "fresh").touch()
    back_up(job)

    assert found(job, "2", "1") == [("fresh", "removed"), ("gone", "new"), ("old", "renamed", "new")]


def test_what_came_and_went_between_is_no_difference(job: Job, source: Path) -> None:
    (source / "file").write_text("one")
    (source / "moved").write_text("moved")
    os.utime(source, ns=(1, 1))
    back_up(job)
    (source / "short-lived").touch()
    (source / "file").write_text("other")
    (source / "moved").rename(source / "away")
    back_up(job)
    (source / "short-lived").unlink()
    (source / "file").write_text("three")
    (source / "away").rename(source / "moved")
    os.utime(source, ns=(1, 1))
    back_up(job)

    assert found(job, "1", "3", directories=True) == [("file", "content")]
    assert found(job, "1", "1", directories=True) == []


def test_paths_are_those_of_the_newer_run_also_below_renamed_directories(job: Job, source: Path) -> None:
    (source / "d").mkdir()
    (source / "d/edited").write_text("one")
    (source / "d/gone").write_text("one")
    back_up(job)
    (source / "d/edited").write_text("other")
    (source / "d/gone").unlink()
    (source / "d").rename(source / "e")
    back_up(job)

    assert found(job) == [("d/gone", "removed"), ("e", "renamed,attributes", "d"), ("e/edited", "content")]


def test_another_extended_attribute_is_a_change_of_attributes(job: Job, source: Path) -> None:
    (source / "file").touch()
    back_up(job)
    os.setxattr(source / "file", "user.colour", b"blue")
    back_up(job)

    assert found(job) == [("file", "attributes")]


def test_a_person_reads_a_line_for_each_change(job: Job, source: Path) -> None:
    (source / "d").mkdir()
    (source / "a\nb").touch()
    back_up(job)
    (source / "d").rename(source / "e")
    (source / "a\nb").unlink()
    os.utime(source, ns=(1, 1))
    back_up(job)

    assert output(job, "diff", "1", "latest").splitlines() == [
        "attributes         .",
        "removed            a\\nb",
        "renamed            d -> e/",
    ]


def test_a_run_that_is_no_point_in_time_is_refused(job: Job) -> None:
    back_up(job)
    result = lb(job, "diff", "1", "2")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no run 2; there are runs 1, from" in result.stderr


def test_a_removed_tree_is_listed_with_everything_in_it(job: Job, source: Path) -> None:
    (source / "d/e").mkdir(parents=True)
    (source / "d/e/f").touch()
    back_up(job)
    shutil.rmtree(source / "d")
    back_up(job)

    assert found(job) == [("d", "removed"), ("d/e", "removed"), ("d/e/f", "removed")]
