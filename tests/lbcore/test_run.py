"""What a run keeps of each object, and what it looks at."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lbcore import walk
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import Row
from lbcore.run import catalog_path
from lbcore.testing import MakeJob, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import acl, punch_hole, write
from tests.support.commands import configuration
from tests.support.feed import Feed
from tests.support.points import read_point
from tests.support.running import backed_up, both_detectors, covered, needs_root, run_well
from tests.support.source import at, move, put


def test_every_kind_and_attribute_is_kept(lb_job: MakeJob) -> None:
    job = lb_job()
    put(job, "file", "d/empty", "d/linked")
    write(at(job, "d/empty"), b"")
    os.link(at(job, "d/linked"), at(job, "linked too"))
    os.symlink(b"nowhere/\xff", at(job, "symlink"))
    os.symlink(b"file", at(job, "d/symlink"))
    os.mkfifo(at(job, "fifo"))
    os.mkdir(at(job, "sticky"))
    os.chmod(at(job, "sticky"), 0o1777)
    os.chmod(at(job, "file"), 0o4755)
    os.setxattr(at(job, "file"), "user.a", b"\0\xff" * 50)
    os.setxattr(at(job, "d"), "user.empty", b"")
    os.setxattr(at(job, "d"), "system.posix_acl_default", acl(user=1234, permissions=5))
    os.setxattr(at(job, "d/linked"), "system.posix_acl_access", acl(user=1234, permissions=6))
    for nanosecond, path in enumerate(["symlink", "fifo", "d/linked", "file", "sticky", "d", ""]):
        os.utime(at(job, path), ns=(0, 1_000_000_000_000_000_000 + nanosecond), follow_symlinks=False)
    backed_up(job)
    os.utime(at(job, "file"), ns=(0, -1))
    os.utime(at(job, "d"), ns=(0, 2**33 * 10**9))
    backed_up(job)


@needs_root
def test_devices_owners_and_the_attributes_of_links_are_kept(lb_job: MakeJob) -> None:
    job = lb_job()
    os.mknod(at(job, "character"), stat.S_IFCHR | 0o620, os.makedev(1, 3))
    os.mknod(at(job, "block"), stat.S_IFBLK | 0o660, os.makedev(300, 70000))
    os.symlink("x", at(job, "link"))
    put(job, "file", "d/file", "secret")
    os.chmod(at(job, "secret"), 0)
    for path, uid, gid in [("character", 1, 2), ("link", 3, 4), ("file", 2**31, 2**32 - 2), ("d", 5, 6), ("", 7, 8)]:
        os.chown(at(job, path), uid, gid, follow_symlinks=False)
    os.setxattr(at(job, "link"), "trusted.x", b"1", follow_symlinks=False)
    os.setxattr(at(job, "block"), "trusted.y", b"2")
    os.chmod(at(job, "file"), 0o6711)
    backed_up(job)
    os.setxattr(at(job, "link"), "trusted.x", b"3", follow_symlinks=False)
    os.removexattr(at(job, "block"), "trusted.y")
    backed_up(job)


@pytest.mark.parametrize("size", [100_000, 1 << 20, 3 << 20])
def test_holes_are_kept(lb_job: MakeJob, size: int) -> None:
    job = lb_job()
    for name, place in [("start", 0), ("middle", size // 2), ("end", size - 5)]:
        with open(at(job, name), "wb") as file:
            file.truncate(size)
            file.seek(place)
            file.write(b"data!")
    with open(at(job, "nothing else"), "wb") as file:
        file.truncate(size)
    put(job, "full")
    write(at(job, "full"), os.urandom(size))
    backed_up(job)
    punch_hole(at(job, "full"), 4096, size - 10_000)
    backed_up(job)


def test_a_path_longer_than_the_kernel_takes_at_once(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%")
    folder = os.open(job.source, os.O_RDONLY)
    for number in range(30):
        name = b"%03d" % number + b"x" * 240
        os.mkdir(name, dir_fd=folder)
        deeper = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    with open(os.open("deep", os.O_WRONLY | os.O_CREAT, dir_fd=folder), "wb") as file:
        file.write(b"content")
    os.link("deep", "also", src_dir_fd=folder, dst_dir_fd=folder)
    backed_up(job)
    os.unlink("also", dir_fd=folder)
    os.rename("deep", "moved", src_dir_fd=folder, dst_dir_fd=folder)
    os.close(folder)
    backed_up(job)
    move(job, b"000" + b"x" * 240, b"y")
    assert backed_up(job).counts["files_copied"] == 0


@contextlib.contextmanager
def fresh_ext4(path: bytes) -> Iterator[None]:
    """Mount an ext4 of its own, which uses numbers of inodes again at once; where that cannot be, do without."""
    image = path + b".ext4"
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    commands = [[b"mkfs.ext4", b"-q", b"-F", image], [b"mount", b"-o", b"loop", image, path]]
    done = False
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        for command in commands:
            subprocess.run(command, check=True, capture_output=True, env=environment)
        done = True
    try:
        yield
    finally:
        if done:
            subprocess.run([b"umount", path], check=True)


def test_a_number_of_an_inode_that_is_used_again_is_not_taken_for_a_rename(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%")
    with fresh_ext4(job.source):
        use_a_number_again(job)


def use_a_number_again(job: Job) -> None:
    put(job, "f", "other")
    inode = os.lstat(at(job, "f")).st_ino
    first = backed_up(job).run
    os.unlink(at(job, "f"))
    for number in range(5000):
        put(job, "g")
        if os.lstat(at(job, "g")).st_ino == inode:
            break
        if number == 4999:
            pytest.skip("this filesystem does not use numbers of inodes again")
        os.unlink(at(job, "g"))
    second = backed_up(job)
    assert (second.counts["objects_new"], second.counts["objects_removed"], second.counts["files_copied"]) == (1, 1, 1)
    with job.catalog() as catalog:
        before, after = catalog.names.child_at(1, b"f", first), catalog.names.child_at(1, b"g", second.run)
        assert before is not None
        assert after is not None
        assert before != after
        assert [len(catalog.names.periods(obj)) for obj in (before, after)] == [1, 1]
    assert read_point(job.target, first)[b"f"].size == 1


def test_nothing_changed_nothing_is_done(lb_job: MakeJob) -> None:
    job = lb_job()
    put(job, "a", "d/b")
    backed_up(job)
    before = read_tree(job.tree)
    counts = backed_up(job).counts
    assert (counts["objects_new"], counts["objects_removed"], counts["files_copied"]) == (0, 0, 0)
    assert compare_trees(before, job.tree) == []


@needs_root
def test_a_root_that_may_not_give_files_away_backs_up_all_the_same(lb_job: MakeJob) -> None:
    job = lb_job()
    put(job, "file")
    os.chown(at(job, "file"), 12, 34)
    done = subprocess.run(
        ["setpriv", "--bounding-set=-chown", sys.executable, "-c", "from lbcore.cli.main import main; main()",
         "-c", configuration(job), "run"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "owner: could not be set in the mirror for 1 objects" in done.stdout
    with open(os.path.join(job.tree, b"file"), "rb") as file:
        assert file.read() == b"file"
    assert [(row.uid, row.gid) for row in _rows(job) if stat.S_ISREG(row.mode)] == [(12, 34)]


def _rows(job: Job) -> list[Row]:
    with contextlib.closing(Catalog.open(catalog_path(job.config), read_only=True)) as catalog:
        return list(catalog.objects.all_now())


def test_a_giant_directory_is_compared_in_parts(lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "_PART", 100)
    job = lb_job(max_delete="100%")
    names = [f"{number:0100d}" for number in range(4000)]
    for name in names:
        write(at(job, name), b"")
    backed_up(job)
    for name in names[::7]:
        os.unlink(at(job, name))
    for name in names[1::7]:
        move(job, name, "new " + name)
    for name in names[2::7]:
        os.chmod(at(job, name), 0o600)
    for number, name in enumerate(names[3::70]):
        os.unlink(at(job, name))
        put(job, f"{name}/inside") if number % 2 else put(job, name)
    backed_up(job)
    assert backed_up(job).counts["objects_removed"] == 0
    with job.catalog() as catalog:
        assert catalog.database.value("SELECT count(*) FROM seen_name") == 0


def test_the_database_may_be_elsewhere(lb_job: MakeJob) -> None:
    job = lb_job()
    job.configure(state_dir=os.fsdecode(job.source + b"-state"))
    put(job, "a")
    backed_up(job)
    put(job, "b")
    backed_up(job)
    assert not os.path.exists(job.lb + b"/job.db")
    assert os.path.exists(job.source + b"-state/job.db")
    job.configure(state_dir=None)
    outcome = job.run()
    assert outcome.exit_code == 1
    assert covered(job) == [b"a", b"b"]


def test_full_looks_at_everything_whatever_is_known(lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbcore.builtin.scan._RACY_SECONDS", -1000)
    job = lb_job(racy_seconds=0)
    put(job, "d/a", "d/b")
    backed_up(job)
    run_well(job)
    with contextlib.closing(sqlite3.connect(os.fsdecode(job.lb + b"/job.db"))) as database, database:
        database.execute("UPDATE object SET mode = mode & ~7 WHERE size = 3")
    assert run_well(job).counts["objects_changed"] == 0
    assert backed_up(job, full=True).counts["objects_changed"] == 2


@both_detectors
def test_several_points_in_time_are_what_the_source_was(lb_job: MakeJob, detector: str) -> None:
    job = lb_job(Feed(), detector=detector, max_delete="100%")
    points = {}
    put(job, "a", "d/b", "d/c")
    os.link(at(job, "a"), at(job, "d/link"))
    points[backed_up(job).run] = read_tree(job.source)
    put(job, "a")
    write(at(job, "a"), b"replaced")
    move(job, "d", "e")
    points[backed_up(job).run] = read_tree(job.source)
    shutil.rmtree(at(job, "e"))
    put(job, "e")
    points[backed_up(job).run] = read_tree(job.source)
    for run, tree in points.items():
        assert compare_trees(tree, read_point(job.target, run)) == []
        folder = job.source + b"-%d" % run
        job.restore(run, folder)
        assert compare_trees(tree, folder) == []
