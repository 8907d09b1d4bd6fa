"""``lb restore`` into a folder that holds something: nothing is overwritten unasked, nothing outside is written."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from lbcore import copying
from lbcore.attributes import Wish
from lbcore.restore import writer
from lbcore.testing import compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.commands import back_up, lb, output
from tests.support.restoring import destination, everything, put, roomy_job
from tests.support.source import at

job = pytest.fixture(roomy_job)
to = pytest.fixture(destination)


def test_an_existing_file_is_never_overwritten_and_nothing_else_is_written_then(job: Job, to: Path) -> None:
    put(job, "a/first", b"from the backup")
    put(job, "a/second", b"from the backup")
    put(job, "z", b"from the backup")
    back_up(job)
    (to / "a").mkdir(parents=True)
    (to / "a/second").write_bytes(b"mine")

    result = lb(job, "restore", ".", "--to", to)

    assert result.exit_code == 2
    assert f"{to}/a/second exists" in result.stderr
    assert "nothing was restored; give another folder, or --overwrite" in result.stderr
    assert sorted(file.name for file in to.rglob("*")) == ["a", "second"]
    assert (to / "a/second").read_bytes() == b"mine"


def test_with_overwrite_existing_files_are_replaced_and_others_stay(job: Job, to: Path) -> None:
    put(job, "a/file", b"from the backup")
    os.symlink("nowhere", at(job, "a/link"))
    os.mkdir(at(job, "a/directory"))
    back_up(job)
    (to / "a").mkdir(parents=True)
    (to / "a/file").write_bytes(b"mine, and somewhat longer")
    os.link(to / "a/file", to / "another-name")
    (to / "a/link").write_bytes(b"no link")
    (to / "a/directory").write_bytes(b"no directory")
    (to / "a/other").write_bytes(b"other")

    output(job, "restore", "--overwrite", "a", "--to", to)

    assert (to / "a/file").read_bytes() == b"from the backup"
    assert (to / "another-name").read_bytes() == b"mine, and somewhat longer"
    assert os.readlink(to / "a/link") == "nowhere"
    assert (to / "a/directory").is_dir()
    assert (to / "a/other").read_bytes() == b"other"


def test_restoring_the_same_twice_with_overwrite_leaves_the_same(job: Job, to: Path) -> None:
    everything(job)
    before = read_tree(job.source)
    back_up(job)

    output(job, "restore", ".", "--to", to)
    output(job, "restore", "--overwrite", ".", "--to", to)

    assert compare_trees(before, to) == []


def test_a_directory_is_never_replaced_by_a_file(job: Job, to: Path) -> None:
    put(job, "thing", b"a file")
    put(job, "a-first", b"")
    back_up(job)
    (to / "thing").mkdir(parents=True)

    result = lb(job, "restore", "--overwrite", ".", "--to", to)

    assert result.exit_code == 2
    assert f"{to}/thing is a directory here, and none in the backup; move it away" in result.stderr
    assert os.listdir(to) == ["thing"]


def test_existing_directories_are_filled_and_get_attributes_only_with_overwrite(job: Job, to: Path) -> None:
    put(job, "a/b/file", b"content")
    os.chmod(at(job, "a"), 0o710)
    back_up(job)
    (to / "a").mkdir(parents=True)
    (to / "a/other").touch()
    (to / "a").chmod(0o755)

    output(job, "restore", "a", "--to", to)
    assert stat.S_IMODE((to / "a").stat().st_mode) == 0o755
    assert sorted(os.listdir(to / "a")) == ["b", "other"]

    (to / "a").chmod(0o555)
    output(job, "restore", "a", "--to", to, "--overwrite")
    assert stat.S_IMODE((to / "a").stat().st_mode) == 0o710


def test_a_destination_with_something_in_it_keeps_its_attributes(job: Job, to: Path) -> None:
    put(job, "file", b"content")
    os.chmod(job.source, 0o711)
    back_up(job)
    to.mkdir()
    to.chmod(0o1777)
    output(job, "restore", ".", "--to", to)
    assert stat.S_IMODE(to.stat().st_mode) == 0o711  # an empty one becomes the root
    to.chmod(0o1777)
    (to / "file").rename(to / "other")
    output(job, "restore", ".", "--to", to)
    assert stat.S_IMODE(to.stat().st_mode) == 0o1777


def test_a_file_that_appears_while_restoring_is_not_overwritten(
    job: Job, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(job, "a", b"from the backup")
    put(job, "b", b"from the backup")
    back_up(job)
    copy = copying.copy_content

    def copy_and_meddle(incoming: int, outgoing: int) -> tuple[int, bytes]:
        (to / "a").write_bytes(b"mine")
        return copy(incoming, outgoing)

    monkeypatch.setattr(writer, "copy_content", copy_and_meddle)
    result = lb(job, "restore", ".", "--to", to)

    assert result.exit_code == 1
    assert "job: a: cannot be restored: File exists" in result.stderr
    assert (to / "a").read_bytes() == b"mine"
    assert sorted(os.listdir(to)) == ["a", "b"]


@pytest.mark.parametrize(
    ("paths", "complaint"),
    [
        (["x/same", "y/same"], "x/same and y/same would both become same"),
        (["x", "x/same"], "x/same is a part of x"),
        ([".", "x"], "x is a part of ."),
        (["x", "missing"], "missing is not in the backup at run 1"),
        (["x", "../x"], "'..' is not allowed"),
        (["x", "/etc/passwd"], "/etc/passwd does not lie below the job's source"),
    ],
)
def test_what_cannot_be_restored_together_is_refused_before_anything_is_written(
    job: Job, to: Path, paths: list[str], complaint: str
) -> None:
    put(job, "x/same", b"x")
    put(job, "y/same", b"y")
    back_up(job)

    result = lb(job, "restore", *paths, "--to", to)

    assert (result.exit_code, to.exists()) == (2, False)
    assert complaint in result.stderr


def test_the_same_path_given_twice_is_restored_once(job: Job, to: Path) -> None:
    put(job, "x/file", b"x")
    back_up(job)

    output(job, "restore", "x", "x/", "--to", to)

    assert os.listdir(to) == ["x"]


@pytest.mark.parametrize("inside", ["", "tree", "tree/a", ".lb/stage", "new"])
def test_nothing_is_restored_into_the_backup_itself(job: Job, inside: str, tmp_path: Path) -> None:
    put(job, "a/file", b"x")
    back_up(job)
    os.symlink(os.path.join(job.target, os.fsencode(inside)), tmp_path / "way")

    for folder in (os.path.join(job.target, os.fsencode(inside)), tmp_path / "way"):
        result = lb(job, "restore", "a", "--to", folder)
        assert result.exit_code == 2
        assert "lies in the backup itself" in result.stderr


def test_a_folder_that_is_a_file_is_refused(job: Job, to: Path) -> None:
    put(job, "a", b"x")
    back_up(job)
    to.write_bytes(b"mine")

    result = lb(job, "restore", "a", "--to", to)

    assert result.exit_code == 2
    assert to.read_bytes() == b"mine"


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_symbolic_link_in_the_folder_does_not_lead_outside(
    job: Job, to: Path, tmp_path: Path, options: list[str]
) -> None:
    put(job, "a/file", b"from the backup")
    back_up(job)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    to.mkdir()
    os.symlink(outside, to / "a")

    result = lb(job, "restore", *options, "a", "--to", to)

    assert (outside / "file").read_bytes() == b"precious"
    assert os.listdir(outside) == ["file"]
    if options:
        assert result.exit_code == 0
        assert not (to / "a").is_symlink()
        assert (to / "a/file").read_bytes() == b"from the backup"
    else:
        assert result.exit_code == 2
        assert f"{to}/a exists, and was a directory" in result.stderr


def test_a_symbolic_link_at_a_files_name_is_replaced_and_not_written_through(
    job: Job, to: Path, tmp_path: Path
) -> None:
    put(job, "file", b"from the backup")
    back_up(job)
    (tmp_path / "precious").write_bytes(b"precious")
    to.mkdir()
    os.symlink(tmp_path / "precious", to / "file")

    assert lb(job, "restore", "file", "--to", to).exit_code == 2
    output(job, "restore", "--overwrite", "file", "--to", to)

    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (to / "file").is_symlink()


def test_a_symbolic_link_that_takes_a_directorys_place_while_restoring_does_not_lead_outside(
    job: Job, to: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(job, "a/b/file", b"from the backup")
    back_up(job)
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    make = writer.Writer.directory

    def make_and_swap(self: writer.Writer, name: bytes, wish: Wish) -> None:
        make(self, name, wish)
        if name == b"a/b":
            os.rename(to / "a", to / "away")
            os.symlink(outside, to / "a")

    monkeypatch.setattr(writer.Writer, "directory", make_and_swap)
    result = lb(job, "restore", ".", "--to", to)

    assert result.exit_code == 1
    assert os.listdir(outside / "b") == []


def test_a_hostile_name_in_the_catalog_is_not_followed(job: Job, to: Path, tmp_path: Path) -> None:
    put(job, "a/file", b"from the backup")
    back_up(job)
    with contextlib.closing(sqlite3.connect(os.fsdecode(job.lb + b"/job.db"))) as database, database:
        database.execute("UPDATE name SET name = ? WHERE name = ?", (b"../../escaped", b"file"))

    lb(job, "restore", "a", "--to", to)

    assert not (tmp_path / "escaped").exists()
    assert not (to.parent / "escaped").exists()


@pytest.mark.parametrize(("paths", "to"), [([""], "there"), (["."], "")])
def test_an_empty_argument_is_no_folder(job: Job, to: str, paths: list[str], tmp_path: Path) -> None:
    put(job, "file", b"content")
    back_up(job)
    result = lb(job, "restore", *paths, "--to", to and str(tmp_path / to))
    assert result.exit_code == 2
    assert "empty" in result.stderr
    assert not (tmp_path / "there").exists()
