"""Files that do not hold still, and what cannot be read: counted, named, tried again; the rest goes on."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from lbcore.builtin.copy import Copy
from lbcore.model import Delivery, NotDelivered, TransferItem, View
from lbcore.run import JobRun, Options
from lbcore.testing import MakeJob, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import write
from tests.support.feed import Feed
from tests.support.running import UntilContent, backed_up, names_at, problems, run_well
from tests.support.source import at, put
from tests.support.users import as_ordinary_user, ordinary_folder

folder_of_user = pytest.fixture(ordinary_folder)


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
