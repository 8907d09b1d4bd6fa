"""``lb history``: all versions of what had a path."""

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


def story(job: Job, path: str) -> list[tuple[int, int, list[str], list[str]]]:
    """(first run, last run, change, paths) of each version."""
    return [
        (version["first_run"], version["last_run"], version["change"], version["paths"])
        for version in json_of(job, "history", path)
    ]


def test_a_file_is_followed_across_its_own_renames_and_those_of_directories_above_it(job: Job, source: Path) -> None:
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_text("one")
    back_up(job)
    (source / "a/b/file").write_text("two, longer")
    back_up(job)
    (source / "a/b/file").rename(source / "a/b/name")
    back_up(job)
    (source / "a").rename(source / "top")
    back_up(job)
    back_up(job)
    (source / "top/b/name").chmod(0o700)
    back_up(job)

    expected = [
        (1, 1, ["new"], ["a/b/file"]),
        (2, 2, ["content"], ["a/b/file"]),
        (3, 3, ["renamed"], ["a/b/name"]),
        (4, 5, ["renamed"], ["top/b/name"]),
        (6, 6, ["attributes"], ["top/b/name"]),
    ]
    for path in ("a/b/file", "a/b/name", "top/b/name"):
        assert story(job, path) == expected
    sizes = [version["size"] for version in json_of(job, "history", "top/b/name")]
    assert sizes == [3, 11, 11, 11, 11]


def test_a_path_that_is_gone_now_still_has_a_history(job: Job, source: Path) -> None:
    (source / "file").write_text("one")
    back_up(job)
    (source / "file").unlink()
    back_up(job)
    back_up(job)

    assert story(job, "file") == [(1, 1, ["new"], ["file"]), (2, 3, ["removed"], [])]


def test_what_lay_in_a_directory_that_is_gone_is_found(job: Job, source: Path) -> None:
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_text("one")
    back_up(job)
    (source / "a").rename(source / "moved")
    back_up(job)
    shutil.rmtree(source / "moved")
    back_up(job)

    expected = [(1, 1, ["new"], ["a/b/file"]), (2, 2, ["renamed"], ["moved/b/file"]), (3, 3, ["removed"], [])]
    assert story(job, "a/b/file") == expected
    assert story(job, "moved/b/file") == expected


def test_objects_that_had_the_path_one_after_the_other_are_all_listed(job: Job, source: Path) -> None:
    (source / "name").write_text("a file")
    back_up(job)
    (source / "name").rename(source / "other")
    (source / "name").mkdir()
    back_up(job)
    (source / "name").rmdir()
    os.symlink("other", source / "name")
    back_up(job)

    versions = json_of(job, "history", "name")
    assert [(v["first_run"], v["change"], v.get("kind"), v["paths"]) for v in versions] == [
        (1, ["new"], "file", ["name"]),
        (2, ["renamed"], "file", ["other"]),
        (2, ["new"], "directory", ["name"]),
        (3, ["removed"], None, []),
        (3, ["new"], "symlink", ["name"]),
    ]
    assert len({version["object"] for version in versions}) == 3
    assert output(job, "history", "name").count("RUNS") == 3


def test_an_object_that_never_had_the_path_while_its_directory_had_is_not_listed(job: Job, source: Path) -> None:
    (source / "a").mkdir()
    (source / "a/x").write_text("in the first a")
    back_up(job)
    (source / "a").rename(source / "b")
    (source / "a").mkdir()
    (source / "b/y").write_text("never in a")
    back_up(job)

    assert lb(job, "history", "a/y").exit_code == 2
    assert story(job, "a/x") == [(1, 1, ["new"], ["a/x"]), (2, 2, ["renamed"], ["b/x"])]


def test_further_hard_links_are_names_of_the_same_history(job: Job, source: Path) -> None:
    (source / "one").write_text("shared")
    back_up(job)
    os.link(source / "one", source / "two")
    back_up(job)
    (source / "one").unlink()
    back_up(job)

    expected = [
        (1, 1, ["new"], ["one"]),
        (2, 2, ["linked"], ["one", "two"]),
        (3, 3, ["unlinked"], ["two"]),
    ]
    assert story(job, "one") == story(job, "two") == expected


def test_what_an_unfinished_run_did_is_no_version_yet(job: Job, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "file").write_text("one")
    back_up(job)
    (source / "file").write_text("second")
    (source / "file").rename(source / "moved")
    monkeypatch.setattr("lbcore.run.finish_directories", None)
    with pytest.raises(TypeError):
        job.run()

    assert story(job, "file") == [(1, 1, ["new"], ["file"])]
    assert lb(job, "history", "moved").exit_code == 2


def test_a_person_reads_a_table(job: Job, source: Path) -> None:
    (source / "line\nbreak").write_text("one")
    os.utime(source / "line\nbreak", ns=(1, 1_600_000_000_000_000_000))
    back_up(job)
    (source / "line\nbreak").rename(source / "name")
    back_up(job)

    head, first, second = output(job, "history", "name").splitlines()
    assert head.split() == ["RUNS", "SINCE", "SIZE", "MODIFIED", "CHANGE", "PATH"]
    assert first.split()[0] == "1" and first.split()[3] == "3" and first.endswith("  new      line\\nbreak")
    assert " 2020-09-1" in first
    assert second.split()[0] == "2-" and second.endswith("  renamed  name")


def test_the_root_has_a_history(job: Job, source: Path) -> None:
    back_up(job)
    source.chmod(0o700)
    back_up(job)

    assert story(job, ".") == [(1, 1, ["new"], ["."]), (2, 2, ["attributes"], ["."])]


def test_a_path_that_never_was_is_refused(job: Job, source: Path) -> None:
    back_up(job)
    result = lb(job, "history", "nothing")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no point in time holds nothing; there are runs 1, from" in result.stderr
