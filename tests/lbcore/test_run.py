"""What a run promises: kinds and attributes, errors of files, scope, the brake, a source that moves meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lbcore import _posix, brake, hookimpl, observing, walk
from lbcore.builtin.copy import Copy
from lbcore.builtin.scan import Scan
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import Row
from lbcore.model import Delivery, Hint, Listing, NotDelivered, Seen, TransferItem, View
from lbcore.plugins.types import DetectorPlugin, Known
from lbcore.progress import Progress
from lbcore.run import JobRun, Options, Outcome, catalog_path
from lbcore.scope import Scope
from lbcore.testing import MakeJob, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import acl, exchange, punch_hole, write
from tests.support.commands import call, configuration
from tests.support.feed import Feed
from tests.support.feed import walk as walk_source
from tests.support.points import read_point
from tests.support.source import at, move, put
from tests.support.users import as_ordinary_user, ordinary_folder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can make devices and mount")
folder_of_user = pytest.fixture(ordinary_folder)


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


# -- files that cannot be captured ---------------------------------------------------------------------------------


@contextlib.contextmanager
def before_each_file_is_read(action: Callable[[bytes], None]) -> Iterator[None]:
    """Call ``action`` with the path of each file right before the transfer reads it."""
    deliver = Copy.deliver

    def meddle(self: Copy, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes) -> Iterator[Delivery]:
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


@pytest.mark.parametrize("known", [False, True])
def test_a_file_that_could_not_be_read_is_tried_again_though_its_feed_mentions_it_no_more(
    lb_job: MakeJob, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Copy, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes) -> Iterator[Delivery]:
        for item in items:
            yield NotDelivered(obj=item.obj, reason="Input/output error")

    job = lb_job(Feed(), detector="feed", racy_seconds=0)
    put(job, "other", *(["file"] if known else []))
    backed_up(job)
    write(at(job, "file"), b"new content")
    with monkeypatch.context() as patch:
        patch.setattr(Copy, "deliver", fail)
        for _ in range(2):
            assert job.run().exit_code == 3
    backed_up(job)


def test_what_could_not_be_read_is_counted_as_neither_new_nor_changed_also_when_the_run_is_paused_after_it(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(self: Copy, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes) -> Iterator[Delivery]:
        yield from well(self, view, [item for item in items if b"bad" not in item.path], folder, tree)
        yield from (NotDelivered(obj=item.obj, reason="no") for item in items if b"bad" in item.path)

    well = Copy.deliver
    monkeypatch.setattr(Copy, "deliver", some)
    for name, pausing in (("whole", False), ("paused", True)):
        job = lb_job(name=name, racy_seconds=0)
        put(job, "old", "bad-old")
        with monkeypatch.context() as patch:
            patch.setattr(Copy, "deliver", well)
            backed_up(job)
        for path in ("old", "bad-old"):
            write(at(job, path), b"another content")
        put(job, "new", "bad-new")
        if pausing:
            progress = UntilContent()
            paused = JobRun(job.config, job.plugins, Options(), progress, lambda: progress.reached).run()  # noqa: B023
            assert paused.state == "paused"
        counts = job.run().counts
        # The directory they are in has changed, too.
        assert (counts["objects_new"], counts["objects_changed"], counts["files_copied"]) == (1, 2, 2), name


def test_a_file_that_always_changes_counts_as_an_error_once_it_is_stale(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lb_job(max_stale="1h", racy_seconds=10**6)
    put(job, "log", "log of the hour")
    now_ns, clock = time.time_ns, [0]
    monkeypatch.setattr("time.time_ns", lambda: now_ns() + clock[0] * 60 * 10**9)

    def meddle(path: bytes) -> None:
        if path.endswith(b"log") or clock[0] == 100:
            append(path)

    with before_each_file_is_read(meddle):
        codes = []
        for clock[0] in (0, 40, 59, 61, 100):
            append(at(job, "log of the hour"))
            codes.append(job.run().exit_code)
    assert codes == [0, 0, 0, 3, 3]
    with job.catalog() as catalog:
        assert [(problem.path, problem.counted) for problem in catalog.runs.problems(5)] == [
            (b"log", True),
            (b"log of the hour", False),  # it was captured at 61 minutes
        ]
    backed_up(job)


def test_a_file_that_may_change_unnoticed_is_compared_by_the_next_run(lb_job: MakeJob) -> None:
    """The change is within the same tick of the clock as the one that the backup saw."""
    job = lb_job(racy_seconds=1000)
    put(job, "racy")
    backed_up(job)
    rewrite(at(job, "racy"))
    with contextlib.closing(sqlite3.connect(os.fsdecode(job.lb + b"/job.db"))) as database, database:
        database.execute("UPDATE object SET ctime_ns = ? WHERE size = 4", (os.lstat(at(job, "racy")).st_ctime_ns,))
    assert backed_up(job).counts["files_copied"] == 1
    job.configure(racy_seconds=0)
    run_well(job)
    with job.catalog() as catalog:
        assert catalog.hints.count() == 0


def test_an_unreadable_file_or_directory_keeps_what_the_backup_has(folder_of_user: bytes) -> None:
    def first() -> Job:
        job = Job(folder_of_user, max_delete="100%", racy_seconds=0)
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
        before = names_at(job, 1)
        outcome = job.run()
        assert (outcome.exit_code, outcome.state) == (3, "committed")
        assert outcome.counts["objects_new"] == 1  # open/new; "file" has changed, and is not in the backup as it is now
        assert problems(job, outcome.run) == {
            b"file": "Permission denied",
            b"closed": "Permission denied",
            b"listed/c": "Permission denied",
            b"listed/sub": "Permission denied",
        }
        for path in ("file", "closed", "listed/sub"):
            assert f"{path}: Permission denied" in job.log(outcome.run)
        assert names_at(job, 2).keys() == before.keys() - {b"open/e"} | {b"open/new"}
        assert job.run().exit_code == 3
        for path, mode in (("file", 0o600), ("closed", 0o700), ("listed", 0o700)):
            os.chmod(at(job, path), mode)
        backed_up(job)

    as_ordinary_user(check)


def test_an_ordinary_user_keeps_extended_attributes_of_files_that_nobody_may_write(folder_of_user: bytes) -> None:
    def check() -> None:
        job = Job(folder_of_user)
        put(job, "file")
        os.setxattr(at(job, "file"), "user.a", b"kept")
        os.chmod(at(job, "file"), 0o444)
        outcome = backed_up(job)
        assert not [name for name in outcome.counts if name.startswith("not_held")]
        assert os.getxattr(os.path.join(job.tree, b"file"), "user.a") == b"kept"

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


# -- scope --------------------------------------------------------------------------------------------------------


def both_detectors(test: Callable[..., None]) -> Any:
    return pytest.mark.parametrize("detector", ["scan", "feed"])(test)


def covered(job: Job) -> list[bytes]:
    return sorted(read_tree(job.tree).keys() - {b""})


@both_detectors
def test_patterns_exclude_and_include_as_gitignore_does_and_changing_them_adds_and_removes(
    lb_job: MakeJob, detector: str
) -> None:
    job = lb_job(Feed(), detector=detector, exclude=["*.o", "!keep.o", "/d/cache/", "tmp"], include=["last.o"])
    put(job, "a.o", "keep.o", "last.o", "d/a.o", "d/cache/x", "e/d/cache/x", "e/tmp/x/y", "tmp", "x")
    everything = sorted(read_tree(job.source).keys() - {b""})
    run_well(job)
    few = [b"d", b"e", b"e/d", b"e/d/cache", b"e/d/cache/x", b"keep.o", b"last.o", b"x"]
    assert covered(job) == few
    job.configure(exclude=["*.o"], include=[])
    run_well(job)
    assert covered(job) == [path for path in everything if not path.endswith(b".o")]
    job.configure(exclude=[])
    backed_up(job)
    job.configure(exclude=["e", "\\#*", "*\xff*"], max_delete="100%")
    put(job, b"#x", b"\xff", b"two\nlines")
    run_well(job)
    assert covered(job) == sorted({path for path in everything if not path.startswith(b"e")} | {b"\xff", b"two\nlines"})


@both_detectors
def test_a_rename_that_takes_something_in_or_out_of_what_is_covered_is_seen(lb_job: MakeJob, detector: str) -> None:
    job = lb_job(Feed(), detector=detector, exclude=["/x/tmp", "old*"], max_delete="100%")
    put(job, "a/tmp/f", "a/g", "deep/a/tmp/h")
    for path, _, names in os.walk(job.source):  # so old that the directories are not listed again for being new
        for name in names:
            os.utime(os.path.join(path, name), ns=(0, 0))
    backed_up(job)
    patch = pytest.MonkeyPatch()
    patch.setattr("lbcore.builtin.scan._RACY_SECONDS", -1000)
    with contextlib.closing(_Undo(patch)):
        run_well(job)
        move(job, "a", "x")
        run_well(job)
        assert covered(job) == [b"deep", b"deep/a", b"deep/a/tmp", b"deep/a/tmp/h", b"x", b"x/g"]
        move(job, "x", "a")
        backed_up(job)
        move(job, "a", "old a")
        run_well(job)
        assert covered(job) == [b"deep", b"deep/a", b"deep/a/tmp", b"deep/a/tmp/h"]
        move(job, "old a", "a")
        backed_up(job)


class _Undo:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.close = patch.undo


@contextlib.contextmanager
def mounted(path: bytes) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "lb-test", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@needs_root
def test_what_is_mounted_below_the_source_is_covered_and_kept_while_it_is_not_mounted(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%")
    put(job, "a", "mnt/below")
    with mounted(at(job, "mnt")):
        put(job, "mnt/b", "mnt/d/c")
        backed_up(job)
        os.rename(at(job, "mnt/b"), at(job, "mnt/d/b"))
        backed_up(job)
    before = read_tree(job.tree)
    put(job, "new")
    outcome = job.run()
    assert outcome.exit_code == 3
    assert "mounted" in problems(job, outcome.run)[b"mnt"]
    assert read_tree(job.tree).keys() == before.keys() | {b"new"}
    job.configure(exclude=["mnt"])
    run_well(job)
    assert covered(job) == [b"a", b"new"]
    job.configure(exclude=[])
    backed_up(job)


@needs_root
def test_one_filesystem_leaves_out_what_is_mounted_and_may_be_changed_later(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%", one_filesystem=True)
    put(job, "a")
    os.mkdir(at(job, "mnt"))
    with mounted(at(job, "mnt")):
        put(job, "mnt/b", "mnt/d/c")
        run_well(job)
        assert covered(job) == [b"a", b"mnt"]
        job.configure(one_filesystem=False)
        backed_up(job)
        job.configure(one_filesystem=True)
        run_well(job)
        assert covered(job) == [b"a", b"mnt"]
    backed_up(job)


# -- the brake and the source ---------------------------------------------------------------------------------------


def files(job: Job, count: int, folder: str = "d") -> None:
    put(job, *(f"{folder}/{number}" for number in range(count)))


def remove(job: Job, numbers: Iterable[int], folder: str = "d") -> None:
    for number in numbers:
        os.unlink(at(job, f"{folder}/{number}"))


@both_detectors
def test_a_run_that_would_remove_too_much_applies_nothing_until_it_is_approved(lb_job: MakeJob, detector: str) -> None:
    job = lb_job(Feed(), detector=detector, max_delete=5)
    files(job, 20)
    backed_up(job)
    before = read_tree(job.tree)
    remove(job, range(6))
    put(job, "new")
    for _ in range(2):
        outcome = job.run()
        assert (outcome.exit_code, outcome.state) == (6, "braked")
        assert "lb approve job" in outcome.message
        assert compare_trees(before, job.tree) == []
    with contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog:
        last = catalog.runs.last()
        assert last is not None
        brake.approve(catalog, last.removals)
    backed_up(job)
    remove(job, range(6, 12))
    assert job.run().exit_code == 6


def test_max_delete_of_the_command_line_counts_once(lb_job: MakeJob) -> None:
    job = lb_job(max_delete=5)
    files(job, 20)
    backed_up(job)
    remove(job, range(8))
    assert job.run(max_delete=7).exit_code == 6
    backed_up(job, max_delete="50%")
    remove(job, range(8, 16))
    assert job.run().exit_code == 6


def test_a_run_asked_to_stop_while_it_observes_does_so_at_once_and_the_next_one_observes_again(lb_job: MakeJob) -> None:
    job = lb_job()
    put(job, *(f"d{number}/file" for number in range(50)))
    asked = itertools.count()

    outcome = JobRun(job.config, job.plugins, Options(), Progress(), lambda: next(asked) >= 10).run()

    assert (outcome.exit_code, outcome.state) == (75, "paused")
    with contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog:
        assert catalog.plan.count() < 50
        assert [run.state for run in catalog.runs.all()] == ["observing"]
    assert os.listdir(job.tree) == []
    run_well(job)
    assert compare_trees(job.source, job.tree) == []


def test_a_mirror_that_is_gone_is_not_made_anew(lb_job: MakeJob) -> None:
    job = lb_job()
    put(job, "file")
    backed_up(job)
    os.rename(job.tree, job.tree + b"-elsewhere")
    for _ in range(2):
        outcome = job.run()
        assert (outcome.exit_code, outcome.state) == (1, "failed")
        assert "tree is gone" in outcome.message and "bring it back" in outcome.message
        assert not os.path.lexists(job.tree)
    os.rename(job.tree + b"-elsewhere", job.tree)
    backed_up(job)


def test_what_is_gone_from_the_mirror_is_damage_when_a_run_meets_it(lb_job: MakeJob) -> None:
    job = lb_job(racy_seconds=0)
    put(job, "file", "other")
    backed_up(job)
    os.unlink(os.path.join(job.tree, b"file"))
    os.chmod(at(job, "file"), 0o600)
    done = call(configuration(job), "run")
    assert done.exit_code == 4
    assert "1 objects are gone from the mirror; 'lb verify' names them" in done.stderr


def test_a_target_that_is_not_mounted_is_left_as_it_is(lb_job: MakeJob, tmp_path: Path) -> None:
    job = lb_job(state_dir=str(tmp_path / "state"))
    put(job, "file")
    backed_up(job)
    os.rename(job.target, job.target + b"-elsewhere")
    for mount_point in (False, True):
        if mount_point:
            os.mkdir(job.target)
        outcome = job.run()
        assert outcome.exit_code == 1
        assert "knows of one there: is it mounted?" in outcome.message
        assert os.path.lexists(job.target) == mount_point
    assert os.listdir(job.target) == []
    os.rmdir(job.target)
    os.rename(job.target + b"-elsewhere", job.target)
    backed_up(job)


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


class UntilContent(Progress):
    """Asks for a pause once content is delivered."""

    reached = False

    def stage(self, name: str, total: int | None = None) -> None:
        self.reached |= name == "content"


def test_what_a_resumed_run_has_seen_is_no_plan_before_it_has_seen_all(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run paused in its content, resumed, and paused again while it observed: once for each place to stop at."""
    monkeypatch.setattr(observing, "_ROWS_TOGETHER", 1)
    for stop in itertools.count(2, 3):
        job = lb_job(name=f"stop-{stop}", max_delete="100%")
        put(job, *(f"a/{number}" for number in range(10)), *(f"b{number}/file" for number in range(6)))
        backed_up(job)
        first = read_tree(job.source)
        put(job, "new/one")
        progress = UntilContent()
        paused = JobRun(job.config, job.plugins, Options(), progress, lambda: progress.reached).run()  # noqa: B023
        assert paused.state == "paused"
        before = os.stat(at(job, "a/0"))
        for name, content in (("a/0", b"A/0"), ("a/1", b"longer")):
            write(at(job, "passing"), content)
            os.utime(at(job, "passing"), ns=(before.st_atime_ns, before.st_mtime_ns))
            move(job, "passing", name)
        put(job, "newer/two")
        shutil.rmtree(at(job, "b0"))
        asked = itertools.count()
        again = JobRun(job.config, job.plugins, Options(), Progress(), lambda: next(asked) >= stop).run()  # noqa: B023
        if again.state == "committed":
            break  # it met fewer places to stop at; how many depends on the inode numbers that the filesystem gives again
        assert again.state == "paused"

        backed_up(job)

        assert compare_trees(job.source, job.tree) == []
        assert compare_trees(first, read_point(job.target, 1)) == []
    assert stop > 8, "the places to stop at lie among the observations"


def test_a_slow_drain_is_seen_and_forgotten_after_seven_days(lb_job: MakeJob) -> None:
    job = lb_job(max_delete=5)
    files(job, 20)
    backed_up(job)
    for number in range(5):
        remove(job, [number])
        backed_up(job)
    remove(job, [5])
    outcome = job.run()
    assert (outcome.exit_code, "last 7 days" in outcome.message) == (6, True)
    with contextlib.closing(sqlite3.connect(os.fsdecode(job.lb + b"/job.db"))) as database, database:
        database.execute("UPDATE run SET finished_ns = finished_ns - ?", (8 * 86_400 * 10**9,))
    backed_up(job)


def test_another_directory_or_none_in_the_place_of_the_source_is_refused(lb_job: MakeJob) -> None:
    job = lb_job()
    put(job, "a", "b")
    backed_up(job)
    before = read_tree(job.tree)
    os.rename(job.source, job.source + b".away")
    outcome = job.run()
    assert (outcome.exit_code, "cannot be read" in outcome.message) == (1, True)
    os.mkdir(job.source)
    outcome = job.run()
    assert (outcome.exit_code, "is not the directory" in outcome.message) == (1, True)
    assert compare_trees(before, job.tree) == []
    os.rmdir(job.source)
    os.rename(job.source + b".away", job.source)
    backed_up(job)


@needs_root
def test_a_source_that_is_not_mounted_is_not_an_empty_one(lb_job: MakeJob) -> None:
    job = lb_job()
    with mounted(job.source):
        put(job, "a", "b")
        backed_up(job)
    outcome = job.run()
    assert (outcome.exit_code, "mounted" in outcome.message) == (1, True)
    assert covered(job) == [b"a", b"b"]


def test_a_gap_of_the_feed_leads_to_a_scan_however_many_runs_it_takes(lb_job: MakeJob) -> None:
    feed = Feed()
    job = lb_job(feed, detector="feed", max_delete=5)
    files(job, 20)
    backed_up(job)
    put(job, "unnoticed")
    remove(job, range(10))
    feed.states = {key: walk_source(job.source) for key in feed.states}  # the feed has lost what happened since
    feed.gap = "records are missing"
    assert job.run().exit_code == 6
    assert job.run(max_delete="100%").exit_code == 5
    assert job.differences() == []
    assert job.run().exit_code == 0


# -- a source that changes while it is looked at -------------------------------------------------------------------


class Meddler:
    """A plugin with the detector ``meddling``: a scan that calls a function after a directory was listed."""

    def __init__(self) -> None:
        self.after: dict[bytes, Callable[[], Any]] = {}

    @hookimpl
    def lb_register_detectors(self) -> Iterable[DetectorPlugin]:
        yield DetectorPlugin(name="meddling", summary="a scan for tests", create=lambda options: MeddlingScan(self))


class MeddlingScan(Scan):
    def __init__(self, meddler: Meddler) -> None:
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


# -- the rest -----------------------------------------------------------------------------------------------------


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


def whole(path: bytes) -> dict[bytes, Any]:
    """Everything below a folder, with contents and times."""
    found: dict[bytes, Any] = {}
    for folder, _, names in os.walk(path):
        found[folder] = os.lstat(folder).st_mtime_ns
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.join(folder, name)] = file.read()
    return found


def test_a_dry_run_tells_what_would_be_done_and_changes_nothing(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%")
    put(job, "a", "d/b", "d/c")
    assert job.plan() == {"objects_new": 5, "objects_changed": 0, "objects_removed": 0}
    assert not os.path.exists(job.target)
    backed_up(job)
    shutil.rmtree(at(job, "d"))
    put(job, "new")
    before = whole(job.target)
    plan = job.plan()
    assert (plan["objects_new"], plan["objects_removed"]) == (1, 3)
    after = whole(job.target)
    for found in (before, after):  # the database's side files come and go with whoever opens it
        for path in [path for path in found if path.endswith((b"/.lb", b"-wal", b"-shm", b"/lock"))]:
            del found[path]
    assert after == before
    assert backed_up(job).counts.items() >= plan.items()


def test_a_dry_run_tells_of_the_brake(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="25%")
    put(job, "a", "b", "c")
    backed_up(job)
    os.unlink(at(job, "a"))
    os.unlink(at(job, "b"))
    config = configuration(job, more='max_delete = "25%"')
    shown = call(config, "run", "--dry-run")
    assert shown.exit_code == 0
    assert "the brake would stop it: this run would remove 2 of 4 objects, more than max_delete (25%)" in shown.stdout
    assert "brake" not in call(config, "run", "--dry-run", "--max-delete", "2").stdout
    (planned,) = json.loads(call(config, "run", "--dry-run", "--json").stdout)["jobs"]
    assert planned["brake"].startswith("this run would remove 2")


def test_what_somebody_put_into_the_mirror_is_set_aside(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%")
    put(job, "d/a", "e/f", "g")
    backed_up(job)
    write(job.tree + b"/new", b"foreign 1")
    os.mkdir(job.tree + b"/moved")
    write(job.tree + b"/moved/x", b"foreign 2")
    write(job.tree + b"/d/x", b"foreign 3")
    os.unlink(job.tree + b"/g")
    os.mkdir(job.tree + b"/g")
    write(job.tree + b"/g/x", b"foreign 4")
    put(job, "new", "g")
    move(job, "e/f", "moved")
    shutil.rmtree(at(job, "d"))
    backed_up(job)
    contents = set()
    for folder, _, names in os.walk(job.lb + b"/strays"):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                contents.add(file.read())
    assert contents == {b"foreign 1", b"foreign 2", b"foreign 3", b"foreign 4"}


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
