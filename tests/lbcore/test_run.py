"""What a run promises: kinds and attributes, errors of single files, scope, the brake, a source that moves meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from lbcore import brake, hookimpl, walk
from lbcore.builtin.copy import Copy
from lbcore.builtin.scan import Scan
from lbcore.catalog.catalog import Catalog
from lbcore.model import Delivery, Hint, Listing, Seen, TransferItem, View
from lbcore.plugins.types import DetectorPlugin, Known
from lbcore.run import Outcome, catalog_path
from lbcore.scope import Scope
from lbcore.testing import MakeJob, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import acl, punch_hole, write
from tests.support.feed import Feed
from tests.support.points import read_point
from tests.support.users import as_ordinary_user, ordinary_folder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can make devices and mount")
folder_of_user = pytest.fixture(ordinary_folder)


def at(job: Job, path: str | bytes) -> bytes:
    """The path in the source."""
    return os.path.join(job.source, os.fsencode(path))


def put(job: Job, *paths: str | bytes) -> None:
    """Make files whose content is their path."""
    for path in paths:
        os.makedirs(os.path.dirname(at(job, path)), exist_ok=True)
        write(at(job, path), os.fsencode(path))


def move(job: Job, old: str | bytes, new: str | bytes) -> None:
    os.rename(at(job, old), at(job, new))


def run_well(job: Job, **options: Any) -> Outcome:
    outcome = job.run(**options)
    assert (outcome.exit_code, outcome.message) == (0, "")
    return outcome


def backed_up(job: Job, **options: Any) -> Outcome:
    """A run that must make the backup equal to the source."""
    outcome = run_well(job, **options)
    assert job.differences() == []
    return outcome


def problems(job: Job, run: int) -> dict[bytes, str]:
    with job.catalog() as catalog:
        return {problem.path: problem.reason for problem in catalog.runs.problems(run)}


# -- what is kept -------------------------------------------------------------------------------------------------


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


def test_a_number_of_an_inode_that_is_used_again_is_not_taken_for_a_rename(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%")
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


# -- files that cannot be captured ---------------------------------------------------------------------------------


@contextlib.contextmanager
def before_each_file_is_read(action: Callable[[bytes], None]) -> Iterator[None]:
    """Call ``action`` with the path of each file right before the transfer reads it."""
    deliver = Copy.deliver

    def meddle(
        self: Copy, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes
    ) -> Iterator[Delivery]:
        for item in items:
            action(os.path.join(view.root, item.path))
            yield from deliver(self, view, [item], folder, tree)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Copy, "deliver", meddle)
        yield


def append(path: bytes) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def rewrite(path: bytes) -> None:
    """The same size and times as before: only the ctime tells."""
    status = os.stat(path)
    write(path, b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_pipe(path: bytes) -> None:
    os.unlink(path)
    os.mkfifo(path)


MEDDLING = {
    "grows": (append, "changed while it was read"),
    "is rewritten": (rewrite, "changed while it was read"),
    "vanishes": (os.unlink, "vanished before it was read"),
    "becomes a pipe": (replace_by_pipe, "changed while it was read"),
}


@pytest.mark.parametrize("size", [100, 2 << 20])
@pytest.mark.parametrize("known", ["a new file", "a known file"])
@pytest.mark.parametrize("how", MEDDLING)
def test_a_file_that_does_not_hold_still_is_counted_named_and_tried_again(
    lb_job: MakeJob, how: str, known: str, size: int
) -> None:
    action, reason = MEDDLING[how]
    job = lb_job(max_delete="100%")
    put(job, "d/good", "d/bad\n")
    if known == "a known file":
        backed_up(job)
    for name in ("good", "bad\n"):
        write(at(job, f"d/{name}"), os.urandom(size))
    before = read_tree(job.tree).get(b"d/bad\n") if known == "a known file" else None
    with before_each_file_is_read(lambda path: action(path) if path.endswith(b"bad\n") else None):
        outcome = job.run()
    assert (outcome.exit_code, outcome.state, outcome.problems) == (3, "committed", 1)
    assert problems(job, outcome.run) == {b"d/bad\n": reason}
    assert "d/bad\\n" in job.log(outcome.run)
    now = read_tree(job.tree)
    assert now.get(b"d/bad\n") == before
    assert compare_trees({b"": read_tree(job.source)[b"d/good"]}, {b"": now[b"d/good"]}) == []
    backed_up(job)


def test_a_file_that_is_compared_and_does_not_hold_still_is_tried_again(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lb_job()
    put(job, "a")
    backed_up(job)
    os.chmod(at(job, "a"), 0o600)
    with monkeypatch.context() as patch:
        patch.setattr("lbcore.apply.shards.digest_of", lambda fd: append(at(job, "a")))
        assert job.run().exit_code == 3
    assert stat.S_IMODE(os.lstat(job.tree + b"/a").st_mode) != 0o600
    backed_up(job)


def test_a_file_that_always_changes_counts_as_an_error_once_it_is_stale(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lb_job(max_stale="1h", racy_seconds=10**6)
    put(job, "log", "log of the hour")
    now, clock = time.time_ns(), [0]
    monkeypatch.setattr("time.time_ns", lambda: now + clock[0] * 60 * 10**9)
    with before_each_file_is_read(lambda path: append(path) if path.endswith(b"log") else None):
        codes = []
        for clock[0] in (0, 40, 59, 61, 100):
            append(at(job, "log of the hour"))
            codes.append(job.run().exit_code)
    assert codes == [0, 0, 0, 3, 3]
    assert list(problems(job, 4)) == [b"log"]
    backed_up(job)


def test_a_file_that_may_change_unnoticed_is_compared_by_the_next_run(lb_job: MakeJob) -> None:
    """The change is within the same tick of the clock as the one that the backup saw."""
    job = lb_job(racy_seconds=1000)
    put(job, "quiet", "racy")
    os.utime(at(job, "quiet"), ns=(0, 0))
    backed_up(job)

    def change_within_the_tick() -> None:
        rewrite(at(job, "racy"))
        with contextlib.closing(sqlite3.connect(os.fsdecode(job.lb + b"/job.db"))) as database, database:
            ctime = os.lstat(at(job, "racy")).st_ctime_ns
            database.execute("UPDATE object SET ctime_ns = ? WHERE size = 4", (ctime,))

    change_within_the_tick()
    assert backed_up(job).counts["files_copied"] == 1
    job.configure(racy_seconds=0)
    run_well(job)
    write(at(job, "racy"), b"RACY")
    os.utime(at(job, "racy"), ns=(0, 0))
    run_well(job)
    write(at(job, "racy"), b"racy")
    os.utime(at(job, "racy"), ns=(0, 0))
    change_within_the_tick()
    assert backed_up(job, full=True).counts["files_copied"] == 0 or job.differences() == []


def test_an_unreadable_file_or_directory_keeps_what_the_backup_has(folder_of_user: bytes) -> None:
    def first() -> Job:
        job = Job(folder_of_user, max_delete="100%")
        put(job, "file", "closed/a", "closed/sub/b", "listed/c", "listed/sub/d", "open/e")
        backed_up(job)
        put(job, "file", "open/new", "closed/changed")
        os.unlink(at(job, "open/e"))
        os.unlink(at(job, "closed/a"))
        os.chmod(at(job, "file"), 0)
        os.chmod(at(job, "closed"), 0o300)
        os.chmod(at(job, "listed"), 0o400)
        return job

    def check() -> None:
        job = first()
        before = read_tree_of_user(job)
        outcome = job.run()
        assert (outcome.exit_code, outcome.state) == (3, "committed")
        assert problems(job, outcome.run) == {
            b"file": "Permission denied",
            b"closed": "Permission denied",
            b"listed/c": "Permission denied",
            b"listed/sub": "Permission denied",
        }
        for path in ("file", "closed", "listed/sub"):
            assert f"{path}: Permission denied" in job.log(outcome.run)
        assert read_tree_of_user(job).keys() == before.keys() - {b"open/e"} | {b"open/new"}
        assert job.run().exit_code == 3
        for path, mode in (("file", 0o600), ("closed", 0o700), ("listed", 0o700)):
            os.chmod(at(job, path), mode)
        backed_up(job)

    def read_tree_of_user(job: Job) -> dict[bytes, Any]:
        """The mirror, in which the directories have the modes of the source."""
        copy = folder_of_user + b"/readable"
        subprocess.run(["cp", "-r", "--", job.tree, copy], check=False, stderr=subprocess.DEVNULL)
        with job.catalog() as catalog:
            run = catalog.runs.last_committed()
        assert run is not None
        shutil.rmtree(copy)
        return names_at(job, run.run)

    as_ordinary_user(check)


def names_at(job: Job, run: int) -> dict[bytes, Any]:
    """The paths of a point in time, by the catalog alone."""
    found: dict[bytes, Any] = {b"": None}
    with job.catalog() as catalog:
        waiting = [(1, b"")]
        while waiting:
            parent, path = waiting.pop()
            for name, obj in catalog.names.children_at(parent, run):
                below = os.path.join(path, name)
                found[below] = None
                waiting.append((obj, below))
    return found
