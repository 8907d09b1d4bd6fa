"""``lb restore``: what comes out is what was there."""

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore import copying
from lbcore.apply import arriving, lift, place
from lbcore.points import local_time
from lbcore.restore import writer
from lbcore.testing import MakeJob, Tree, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import KINDS, Change, Changer, acl, write
from tests.support.commands import back_up, call, configuration, lb, output

ROOT_USER = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT_USER, reason="needs root: only root can make devices and give files away")
ordinary = pytest.mark.skipif(ROOT_USER, reason="an ordinary user meets permissions that root does not")


@pytest.fixture
def job(lb_job: MakeJob) -> Job:
    return lb_job(max_delete="100%")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """A destination that is not there yet."""
    return tmp_path / "restored"


def path(job: Job, name: str | bytes) -> bytes:
    return os.path.join(job.source, os.fsencode(name))


def put(job: Job, name: str | bytes, content: bytes) -> bytes:
    """Make a file of the source, with the directories above it."""
    os.makedirs(os.path.dirname(path(job, name)), exist_ok=True)
    write(path(job, name), content)
    return path(job, name)


def versions(job: Job) -> list[Path]:
    return [file for file in Path(os.fsdecode(job.lb), "versions").rglob("*") if file.is_file()]


# -- what comes out -----------------------------------------------------------------------------------------------


def everything(job: Job) -> None:
    """One of each kind of object that this user can make."""
    put(job, "a/file", b"content")
    put(job, "a/empty", b"")
    put(job, "a/set-uid", b"#!/bin/sh\n")
    os.chmod(path(job, "a/set-uid"), 0o6755)
    put(job, b"a/line\nbreak \xff \\", b"hostile")
    os.link(path(job, "a/file"), path(job, "linked"))
    os.makedirs(path(job, "b/shut"))
    put(job, "b/shut/inside", b"inside")
    os.chmod(path(job, "b/shut"), 0o500)
    os.chmod(path(job, "b"), 0o1777)
    os.symlink(b"no\nsuch\xffplace", path(job, "symlink"))
    os.symlink("a", path(job, "b/to-a-directory"))
    os.mkfifo(path(job, "b/fifo"), 0o620)
    os.mknod(path(job, "b/socket"), stat.S_IFSOCK | 0o755)
    with open(path(job, "a/sparse"), "wb") as file:
        file.truncate(8 << 20)
        file.seek(5 << 20)
        file.write(b"island")
    with open(path(job, "a/hole"), "wb") as file:
        file.truncate(3 << 20)
    with open(path(job, "a/large"), "wb") as file:
        file.write(os.urandom((2 << 20) + 17))
    os.setxattr(path(job, "a/file"), "user.colour", b"\0blue")
    os.setxattr(path(job, "a"), "user.on-a-directory", b"too")
    os.setxattr(path(job, "a/file"), "system.posix_acl_access", acl(user=1, permissions=4))
    os.setxattr(path(job, "a"), "system.posix_acl_default", acl(user=2, permissions=5))
    os.utime(path(job, "a/file"), ns=(1, 123_456_789_987_654_321))
    os.utime(path(job, "symlink"), ns=(1, -1_000_000_007), follow_symlinks=False)
    if ROOT_USER:
        os.mknod(path(job, "b/device"), stat.S_IFCHR | 0o640, os.makedev(1, 3))
        os.mknod(path(job, "b/disk"), stat.S_IFBLK | 0o640, os.makedev(7, 200))
        for name in ("a/file", "a/set-uid", "b", "symlink", "b/fifo"):
            status = os.lstat(path(job, name))
            os.lchown(path(job, name), 1234, 5678)
            if not stat.S_ISLNK(status.st_mode):
                os.chmod(path(job, name), stat.S_IMODE(status.st_mode))
        os.setxattr(path(job, "b"), "trusted.kept", b"by root only")
    os.utime(path(job, "b"), ns=(1, 987_654_321))
    os.utime(job.source, ns=(1, 1_234_567_890_123_456_789))
    os.chmod(job.source, 0o751)


def test_the_whole_tree_comes_out_as_it_was(job: Job, to: Path) -> None:
    everything(job)
    before = read_tree(job.source)
    back_up(job)

    said = output(job, "restore", ".", "--to", to)

    assert compare_trees(before, to) == []
    files = len({node.links or name for name, node in before.items() if node.kind == "file"})
    assert said == f"job: restored {len(before)} objects of run 1 to {to} ({files} files, 13.6 MB)\n"


def test_the_backup_is_not_changed_by_restoring(job: Job, to: Path) -> None:
    everything(job)
    back_up(job)
    before = read_tree(job.tree)

    output(job, "restore", ".", "--to", to)

    assert compare_trees(before, job.tree) == []


ROUNDS = st.lists(
    st.lists(st.builds(Change, st.sampled_from(sorted(KINDS)), *[st.integers(0, 40)] * 3), max_size=10),
    min_size=1,
    max_size=4,
)


@given(rounds=ROUNDS)
@settings(deadline=None, max_examples=25, database=None)
def test_each_point_in_time_equals_what_the_source_was_then(
    rounds: list[list[Change]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = os.fsencode(tmp_path_factory.mktemp("case"))
    job = Job(folder, max_delete="100%")
    changer = Changer(job.source, job.source + b"-outside")
    points: dict[int, Tree] = {}
    for changes in rounds:
        for change in changes:
            changer.make(change)
        points[back_up(job)] = read_tree(job.source)
    for run, source in points.items():
        to = Path(os.fsdecode(folder), f"run-{run}")
        output(job, "restore", "--at", str(run), ".", "--to", to)
        assert compare_trees(source, to) == [], f"run {run}"
    shutil.rmtree(folder)


def test_a_renamed_and_overwritten_file_comes_out_as_it_was_under_its_old_name(job: Job, to: Path) -> None:
    put(job, "old/name", b"first")
    first = back_up(job)
    os.rename(path(job, "old"), path(job, "new"))
    os.rename(path(job, "new/name"), path(job, "new/other"))
    put(job, "new/other", b"second, longer")
    put(job, "new/name", b"another file")
    back_up(job)

    output(job, "restore", "--at", str(first), "old/name", "--to", to)
    output(job, "restore", "new/other", "new/name", "--to", to / "now")

    assert (to / "name").read_bytes() == b"first"
    assert (to / "now/other").read_bytes() == b"second, longer"
    assert (to / "now/name").read_bytes() == b"another file"


def test_a_file_that_was_only_renamed_and_given_another_mode_is_read_from_the_mirror(job: Job, to: Path) -> None:
    put(job, "file", b"same")
    os.chmod(path(job, "file"), 0o640)
    first = back_up(job)
    os.rename(path(job, "file"), path(job, "elsewhere"))
    os.chmod(path(job, "elsewhere"), 0o600)
    back_up(job)
    assert versions(job) == []

    output(job, "restore", "--at", str(first), "file", "--to", to)

    assert (to / "file").read_bytes() == b"same"
    assert stat.S_IMODE((to / "file").stat().st_mode) == 0o640


def test_hard_links_are_those_of_the_point_in_time(job: Job, to: Path) -> None:
    put(job, "a", b"one")
    os.link(path(job, "a"), path(job, "b"))
    first = back_up(job)
    os.unlink(path(job, "b"))
    put(job, "b", b"now apart")
    os.link(path(job, "a"), path(job, "c"))
    second = back_up(job)

    output(job, "restore", "--at", str(first), ".", "--to", to / "1")
    output(job, "restore", "--at", str(second), ".", "--to", to / "2")

    assert (to / "1/a").samefile(to / "1/b")
    assert (to / "2/a").samefile(to / "2/c")
    assert not (to / "2/a").samefile(to / "2/b")
    assert (to / "2/a").stat().st_nlink == 2


def test_hard_links_are_kept_across_the_paths_of_one_command(job: Job, to: Path) -> None:
    put(job, "x/one", b"shared")
    put(job, "y/own", b"")
    os.link(path(job, "x/one"), path(job, "y/two"))
    os.link(path(job, "x/one"), path(job, "three"))
    back_up(job)

    output(job, "restore", "x", "y", "three", "--to", to)

    assert (to / "x/one").samefile(to / "y/two")
    assert (to / "x/one").samefile(to / "three")


def test_a_directory_that_became_a_file_is_a_directory_again(job: Job, to: Path) -> None:
    put(job, "thing/inside", b"inside")
    first = back_up(job)
    shutil.rmtree(path(job, "thing"))
    put(job, "thing", b"a file")
    second = back_up(job)

    output(job, "restore", "--at", str(first), "thing", "--to", to / "1")
    output(job, "restore", "--at", str(second), "thing", "--to", to / "2")

    assert (to / "1/thing/inside").read_bytes() == b"inside"
    assert (to / "2/thing").read_bytes() == b"a file"


def test_holes_stay_holes(job: Job, to: Path) -> None:
    with open(path(job, "sparse"), "wb") as file:
        file.truncate(64 << 20)
        file.seek(40 << 20)
        file.write(b"island")
    back_up(job)

    output(job, "restore", "sparse", "--to", to)

    assert (to / "sparse").stat().st_size == 64 << 20
    assert (to / "sparse").stat().st_blocks * 512 < 1 << 20


def test_a_path_longer_than_the_kernel_takes_is_restored(job: Job, to: Path) -> None:
    names = [b"d%03d-" % number + b"x" * 200 for number in range(30)]
    at = os.open(job.source, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=at)
        deeper = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(os.open(b"bottom", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    back_up(job)

    output(job, "restore", ".", "--to", to / "all")
    output(job, "restore", b"/".join([*names, b"bottom"]), "--to", to / "one")

    assert compare_trees(job.source, to / "all") == []
    assert (to / "one/bottom").exists()
    for folder in (job.source, job.target, to):
        subprocess.run(["rm", "-r", folder], check=True)  # Python's own rmtree cannot


@pytest.mark.parametrize("given", ["a/b", "./a/b/", "a//./b", "{source}/a/b"])
def test_a_path_goes_below_the_folder_under_its_base_name_however_it_is_written(job: Job, to: Path, given: str) -> None:
    put(job, "a/b/c", b"c")
    back_up(job)

    output(job, "restore", given.format(source=os.fsdecode(job.source)), "--to", to)

    assert sorted(map(str, (file.relative_to(to) for file in to.rglob("*")))) == ["b", "b/c"]


def test_restoring_needs_no_source(job: Job, to: Path) -> None:
    put(job, "a/file", b"content")
    back_up(job)
    shutil.rmtree(job.source)

    output(job, "restore", ".", "--to", to)

    assert (to / "a/file").read_bytes() == b"content"


def test_with_several_jobs_one_is_to_be_named(lb_job: MakeJob, to: Path) -> None:
    one, two = lb_job(name="one"), lb_job(name="two")
    for job in (one, two):
        put(job, "file", job.name.encode())
        back_up(job)
    config = configuration(one, two)

    refused = call(config, "restore", "file", "--to", to)
    assert (refused.exit_code, to.exists()) == (2, False)
    assert "say which job is meant: one, two" in refused.stderr
    assert call(config, "restore", "--job", "two", "file", "--to", to).exit_code == 0
    assert (to / "file").read_bytes() == b"two"


# -- what is in the way -------------------------------------------------------------------------------------------


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
    os.symlink("nowhere", path(job, "a/link"))
    os.mkdir(path(job, "a/directory"))
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
    os.chmod(path(job, "a"), 0o710)
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


# -- hostile destinations -----------------------------------------------------------------------------------------


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

    def make_and_swap(self: writer.Writer, name: bytes) -> None:
        make(self, name)
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


# -- damage -------------------------------------------------------------------------------------------------------


def damage(file: str | bytes | Path) -> None:
    """Change a byte, and nothing that a look at the file would show."""
    status = os.stat(file)
    with open(file, "r+b") as opened:
        opened.write(b"X")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_damaged_file_is_reported_and_not_restored_under_its_name(job: Job, to: Path) -> None:
    put(job, "a/bad", b"content")
    put(job, "a/good", b"content")
    back_up(job)
    damage(job.tree + b"/a/bad")

    result = lb(job, "restore", ".", "--to", to)

    assert result.exit_code == 4
    assert (
        "job: a/bad: its content in the backup is damaged; it was not restored, "
        "what there is was written to bad.lb-damaged" in result.stderr
    )
    assert "1 files are damaged" in result.stderr
    assert sorted(os.listdir(to / "a")) == ["bad.lb-damaged", "good"]
    assert (to / "a/bad.lb-damaged").read_bytes() == b"Xontent"
    assert stat.S_IMODE((to / "a/bad.lb-damaged").stat().st_mode) == 0o600


def test_a_damaged_version_is_reported(job: Job, to: Path) -> None:
    put(job, "file", b"first")
    first = back_up(job)
    put(job, "file", b"second")
    back_up(job)
    (kept,) = versions(job)
    damage(kept)

    assert lb(job, "restore", "--at", str(first), "file", "--to", to / "1").exit_code == 4
    output(job, "restore", "file", "--to", to / "2")
    assert (to / "2/file").read_bytes() == b"second"


def test_missing_content_is_reported_and_leaves_nothing(job: Job, to: Path) -> None:
    put(job, "file", b"content")
    back_up(job)
    os.unlink(job.tree + b"/file")

    result = lb(job, "restore", ".", "--to", to)

    assert result.exit_code == 4
    assert "job: file: its content is missing in the backup" in result.stderr
    assert os.listdir(to) == []


def test_with_overwrite_a_damaged_file_does_not_replace_a_good_one(job: Job, to: Path) -> None:
    put(job, "file", b"content")
    back_up(job)
    damage(job.tree + b"/file")
    to.mkdir()
    (to / "file").write_bytes(b"mine")

    assert lb(job, "restore", "--overwrite", "file", "--to", to).exit_code == 4
    assert (to / "file").read_bytes() == b"mine"


def test_a_pipe_in_the_place_of_a_file_does_not_block(job: Job, to: Path) -> None:
    put(job, "file", b"content")
    back_up(job)
    os.unlink(job.tree + b"/file")
    os.mkfifo(job.tree + b"/file")

    assert lb(job, "restore", "file", "--to", to).exit_code == 4


def test_a_full_disk_ends_the_restore(job: Job, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(job, "a", b"a")
    put(job, "b", b"b")
    back_up(job)

    def full(incoming: int, outgoing: int) -> tuple[int, bytes]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer, "copy_content", full)
    result = lb(job, "restore", ".", "--to", to)

    assert result.exit_code == 1
    assert result.stderr == (
        f"lb: cannot write {to}/a: No space left on device; what was restored before it is complete. Mend that, then "
        "restore again with --overwrite\n"
    )
    assert os.listdir(to) == []


# -- while a run is at work ---------------------------------------------------------------------------------------


def interrupted(job: Job, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends, as by a crash, when it is about to mark what ``stage`` did to the mirror."""

    class Crash(BaseException):
        pass

    def crash(work: object, steps: list[object]) -> None:
        if steps:
            raise Crash

    module, name = {"lift": (lift, "_mark"), "place": (place, "_mark"), "content": (arriving, "mark_placed")}[stage]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, crash)
        with pytest.raises(Crash):
            job.run()


@pytest.mark.parametrize("stage", ["lift", "place", "content"])
def test_every_point_in_time_comes_out_while_a_run_is_cut_short(
    job: Job, to: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(job, "moved/below/file", b"moves with its directory")
    put(job, "moved/changed", b"first")
    put(job, "renamed", b"renamed only")
    put(job, "one", b"one")
    put(job, "two", b"two")
    put(job, "gone", b"gone")
    put(job, "edited", b"first")
    os.link(path(job, "edited"), path(job, "edited-too"))
    first = back_up(job)
    before = read_tree(job.source)
    os.mkdir(path(job, "new"))
    os.rename(path(job, "moved"), path(job, "new/place"))
    os.rename(path(job, "new/place/below"), path(job, "new/up"))
    put(job, "new/place/changed", b"second")
    os.rename(path(job, "renamed"), path(job, "new/name"))
    os.rename(path(job, "one"), path(job, "passing"))
    os.rename(path(job, "two"), path(job, "one"))
    os.rename(path(job, "passing"), path(job, "two"))
    os.unlink(path(job, "gone"))
    put(job, "edited", b"second")
    interrupted(job, stage, monkeypatch)

    output(job, "restore", "--at", str(first), ".", "--to", to)

    assert compare_trees(before, to) == []
    assert lb(job, "restore", "--at", "2", ".", "--to", to / "no").exit_code == 2
    back_up(job)
    output(job, "restore", "--at", str(first), ".", "--to", to / "again")
    assert compare_trees(before, to / "again") == []


def test_restoring_goes_on_while_runs_go_on(job: Job, to: Path) -> None:
    """Files move between mirror, stage and versions all the time; every restore still gets its point in time."""
    for number in range(30):
        put(job, f"d/{number}", b"first %d" % number)
    first = back_up(job)
    before = read_tree(job.source)
    stop = threading.Event()
    failures: list[object] = []

    def run_on() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            os.rename(path(job, "d" if turn % 2 else "e"), path(job, "e" if turn % 2 else "d"))
            for number in range(30):
                put(job, f"{'e' if turn % 2 else 'd'}/{number}", b"turn %d of %d" % (turn, number))
            outcome = job.run()
            if outcome.exit_code:
                failures.append(outcome)

    runner = threading.Thread(target=run_on)
    runner.start()
    try:
        until = time.monotonic() + 3
        rounds = 0
        while time.monotonic() < until:
            rounds += 1
            output(job, "restore", "--at", str(first), ".", "--to", to / str(rounds))
            assert compare_trees(before, to / str(rounds)) == []
    finally:
        stop.set()
        runner.join()
    assert failures == []
    assert rounds > 2


# -- ordinary users -----------------------------------------------------------------------------------------------


@ordinary
def test_a_user_restores_what_even_the_owner_may_not_read_in_the_mirror(job: Job, to: Path) -> None:
    put(job, "shut/deep/file", b"content")
    put(job, "unreadable", b"content")
    back_up(job)
    shut = [os.path.join(job.tree, name) for name in (b"unreadable", b"shut/deep", b"shut")]
    for name in shut:
        os.chmod(name, 0)

    output(job, "restore", ".", "--to", to)

    assert compare_trees(job.source, to) == []
    for name in reversed(shut):
        assert stat.S_IMODE(os.lstat(name).st_mode) == 0
        os.chmod(name, 0o700)


@ordinary
def test_a_user_restores_a_directory_that_even_the_owner_may_not_enter(job: Job, to: Path) -> None:
    put(job, "shut/deep/file", b"content")
    os.link(path(job, "shut/deep/file"), path(job, "linked"))
    back_up(job)
    with contextlib.closing(sqlite3.connect(job.lb + b"/job.db")) as database:
        database.execute("UPDATE object SET mode = ? WHERE obj = (SELECT obj FROM name WHERE name = ?)",
                         (stat.S_IFDIR, b"shut"))  # fmt: skip
        database.commit()

    output(job, "restore", "shut", "linked", "--to", to)

    assert stat.S_IMODE((to / "shut").stat().st_mode) == 0
    (to / "shut").chmod(0o700)
    assert (to / "shut/deep/file").samefile(to / "linked")
    assert (to / "shut/deep").stat().st_mtime_ns == os.stat(path(job, "shut/deep")).st_mtime_ns


@needs_root
def test_what_an_ordinary_user_cannot_set_is_counted_and_said(
    job: Job, to: Path, as_nobody: Callable[[Callable[[], int]], int], capfd: pytest.CaptureFixture[str]
) -> None:
    put(job, "mine", b"content")
    put(job, "a/others", b"content")
    os.mknod(path(job, "device"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chown(path(job, "a/others"), 1234, 5678)
    os.chmod(path(job, "a/others"), 0o4755)
    for name in (job.source, path(job, "mine"), path(job, "a"), path(job, "device")):
        os.chown(name, 65534, 65534)
    back_up(job)
    for folder, folders, files in os.walk(job.lb):
        for name in (folder, *(os.path.join(folder, entry) for entry in (*folders, *files))):
            os.chown(name, 65534, 65534)
    to.mkdir()
    os.chown(to, 65534, 65534)
    config = configuration(job)

    def restore() -> int:
        result = call(config, "restore", ".", "--to", to)
        os.write(2, result.stderr.encode())
        return result.exit_code

    assert as_nobody(restore) == 0
    said = capfd.readouterr().err
    assert "job: owner: could not be set for 1 objects" in said
    assert "job: device: could not be set for 1 objects" in said
    assert (to / "a/others").read_bytes() == b"content"
    assert stat.S_IMODE((to / "a/others").stat().st_mode) == 0o755
    assert not (to / "device").exists()


@pytest.fixture
def as_nobody(tmp_path: Path) -> Callable[[Callable[[], int]], int]:
    """Calls a function in a process of an ordinary user; returns what it returned."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)

    def call(function: Callable[[], int]) -> int:
        child = os.fork()
        if child == 0:
            status = 99
            try:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                status = function()
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return call


# -- a backup on a disk that cannot be written --------------------------------------------------------------------


@pytest.fixture
def read_only(job: Job) -> Iterator[Callable[[], None]]:
    """Makes the target one that cannot be written, until the test ends."""
    done: list[bool] = []

    def protect() -> None:
        done.append(True)
        if ROOT_USER:
            mount: list[str | bytes] = ["mount", "--bind", job.target, job.target]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                done.clear()
                pytest.skip("root may not mount here")
            subprocess.run(["mount", "-o", "remount,bind,ro", job.target], check=True)
        else:
            os.chmod(job.lb, 0o500)

    yield protect
    if done and ROOT_USER:
        subprocess.run(["umount", job.target], check=True)
    elif done:
        os.chmod(job.lb, 0o700)


def test_a_backup_that_cannot_be_written_is_read(job: Job, to: Path, read_only: Callable[[], None]) -> None:
    put(job, "file", b"first")
    first = back_up(job)
    put(job, "file", b"second")
    back_up(job)
    read_only()

    output(job, "restore", "--at", str(first), ".", "--to", to)

    assert (to / "file").read_bytes() == b"first"
    assert output(job, "ls") == "file\n"


def test_a_catalog_in_two_parts_that_cannot_be_joined_is_refused_with_what_to_do(
    job: Job, to: Path, read_only: Callable[[], None], tmp_path: Path
) -> None:
    put(job, "file", b"first")
    back_up(job)
    database = os.fsdecode(job.lb) + "/job.db"
    with contextlib.closing(sqlite3.connect(database)) as holder:
        holder.execute("SELECT count(*) FROM run").fetchone()  # while this one reads, nobody folds the WAL
        put(job, "other", b"second")
        back_up(job)
        for end in ("", "-wal"):
            shutil.copy(database + end, tmp_path / f"job.db{end}")
    for end in ("", "-wal"):
        shutil.copy(tmp_path / f"job.db{end}", database + end)
    assert os.path.getsize(database + "-wal") > 0
    read_only()

    refused = lb(job, "restore", ".", "--to", to)
    assert refused.exit_code == 1
    assert (
        f"{database}-wal; copy both to a folder on a writable disk and set state_dir to that folder" in refused.stderr
    )

    config = configuration(job, more=f'state_dir = "{tmp_path}"')
    assert call(config, "restore", ".", "--to", to).exit_code == 0
    assert (to / "other").read_bytes() == b"second"


def test_a_time_means_the_point_in_time_of_then(job: Job, to: Path) -> None:
    put(job, "file", b"first")
    back_up(job)
    with job.catalog() as catalog:
        run = catalog.runs.last_committed()
    assert run is not None and run.view_to_ns is not None
    when = local_time(run.view_to_ns)
    while local_time(time.time_ns()) == when:
        time.sleep(0.05)
    put(job, "file", b"second")
    back_up(job)

    output(job, "restore", "--at", when, ".", "--to", to)

    assert (to / "file").read_bytes() == b"first"
