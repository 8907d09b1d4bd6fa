"""What existing backup tools lose or destroy, each scenario by its number and name, with a scan and with feeds.

Scenario 17 is about retention, which is a plugin of its own; two runs at once (15) are in ``test_faults.py``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from typing import Any

import pytest

from lbcore.run import Outcome
from lbcore.testing import MakeJob, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import acl, exchange, write
from tests.support.feed import Feed
from tests.support.source import at, move, put

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can give files away")


@pytest.fixture(params=["scan", "feed", "sparse feed"])
def job(request: pytest.FixtureRequest, lb_job: MakeJob) -> Job:
    if request.param == "scan":
        return lb_job(max_delete="100%")
    feed = Feed(seed=1, sparse=request.param == "sparse feed")
    return lb_job(feed, detector="feed", max_delete="100%")


def backed_up(job: Job) -> Outcome:
    """A run that must make the backup equal to the source."""
    outcome = job.run()
    assert (outcome.exit_code, outcome.message) == (0, "")
    assert job.differences() == []
    return outcome


def backed_up_without_copying(job: Job) -> None:
    assert backed_up(job).counts.get("files_copied", 0) == 0


HOSTILE_NAMES = [
    b"two\nlines",
    b"\n",
    b"ends in a newline\n",
    b"\r",
    b"tab\t",
    b"\xff\xfe\x80",
    b"lone \xc3",
    "fünf".encode(),
    b"e\xcc\x81 and \xc3\xa9",  # decomposed and composed
    bytes(range(1, 32)) + b"\x7f",
    b"z" * 255,
    b"\n" * 255,
    b" ",
    b" both ends ",
    b"...",
    b"..x",
    b"-rf",
    b"-e cmd",
    b"--",
    b"'",
    b'say "x"',
    b"`touch x`",
    b"$(touch x)",
    b"$HOME",
    b"~root",
    b"back\\slash\\",
    b"*",
    b"[ab]?{c,d}",
    b"a;b|c&d>e",
    b"#hash",
    b"!bang",
    b"%s%n",
    b"host:path",
    b"NUL",
    b"tree",
    b".lb",
    b"job.db",
]


def test_1_a_name_with_a_newline_or_a_byte_that_is_not_utf_8(job: Job) -> None:
    put(job, *HOSTILE_NAMES, *(b"d/" + name + b"/" + name for name in HOSTILE_NAMES))
    backed_up(job)
    for name in HOSTILE_NAMES:
        move(job, b"d/" + name + b"/" + name, b"d/" + name + b"/moved")
        write(at(job, name), b"other")
    backed_up(job)
    for name in HOSTILE_NAMES:
        os.unlink(at(job, name))
        move(job, b"d/" + name, name)
    backed_up(job)


def test_2_everything_is_moved_out_of_a_directory_which_is_removed(job: Job) -> None:
    put(job, "D/a", "D/b", "D/sub/c", "E/x")
    backed_up(job)
    put(job, "D/new")
    os.link(at(job, "E/x"), at(job, "D/hard link"))
    for name in os.listdir(at(job, "D")):
        move(job, b"D/" + name, b"E/" + name)
    os.rmdir(at(job, "D"))
    assert backed_up(job).counts["files_copied"] == 1


METADATA: dict[str, Callable[[bytes], Any]] = {
    "mode": lambda path: os.chmod(path, 0o751),
    "owner": lambda path: os.chown(path, 12345, 54321),
    "acl": lambda path: os.setxattr(path, "system.posix_acl_access", acl(user=1234, permissions=6)),
    "default acl": lambda path: os.setxattr(path, "system.posix_acl_default", acl(user=1234, permissions=7)),
    "xattr": lambda path: os.setxattr(path, "user.colour", b"\0\xff"),
    "times": lambda path: os.utime(path, ns=(0, 1_000_000_001)),
}


@pytest.mark.parametrize("what", [pytest.param(name, marks=needs_root if name == "owner" else ()) for name in METADATA])
def test_3_only_attributes_changed(job: Job, what: str) -> None:
    put(job, "d/file")
    backed_up(job)
    if what != "default acl":
        METADATA[what](at(job, "d/file"))
    if what != "times":
        METADATA[what](at(job, "d"))
        METADATA[what](job.source)
    before = read_tree(job.tree)
    outcome = backed_up(job)
    assert compare_trees(before, job.tree)
    assert what == "times" or outcome.counts["files_copied"] == 0


@needs_root
def test_3_attributes_that_only_root_can_set(job: Job) -> None:
    put(job, "program", "d/x")
    os.symlink("x", at(job, "link"))
    backed_up(job)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(at(job, "program"), "security.capability", capability)
    os.setxattr(at(job, "d"), "trusted.site", b"1")
    os.lchown(at(job, "link"), 1, 2)
    backed_up_without_copying(job)
    os.removexattr(at(job, "program"), "security.capability")
    backed_up_without_copying(job)


def test_4_a_hard_link_is_added_or_removed_and_nothing_else_changed(job: Job) -> None:
    put(job, "a", "d/x")
    backed_up(job)
    os.link(at(job, "a"), at(job, "d/b"))
    os.link(at(job, "a"), at(job, "c"))
    backed_up_without_copying(job)
    os.unlink(at(job, "a"))
    backed_up_without_copying(job)
    os.unlink(at(job, "d/b"))
    backed_up_without_copying(job)


def test_4_the_directory_of_a_hard_link_is_moved_away_and_the_file_itself_does_not_change(job: Job) -> None:
    job.configure(racy_seconds=0)
    put(job, "a", "d/sub/x")
    os.link(at(job, "a"), at(job, "d/sub/link"))
    backed_up(job)
    os.rename(at(job, "d"), job.source + b"-outside")
    backed_up_without_copying(job)
    os.rename(job.source + b"-outside", at(job, "e"))
    assert backed_up(job).counts["files_copied"] == 1


def test_4_a_hard_link_is_replaced_by_a_copy_of_its_file(job: Job) -> None:
    put(job, "a")
    os.link(at(job, "a"), at(job, "b"))
    backed_up(job)
    os.unlink(at(job, "b"))
    shutil.copy2(at(job, "a"), at(job, "b"))
    backed_up(job)


def test_5_a_rename_over_an_existing_file(job: Job) -> None:
    put(job, "a", "b", "d/c")
    backed_up(job)
    move(job, "a", "b")
    move(job, "d/c", "c")
    backed_up_without_copying(job)
    write(at(job, "c"), b"new content")
    move(job, "c", "b")
    backed_up(job)


def test_6_a_file_is_moved_and_then_removed(job: Job) -> None:
    put(job, "f", "other/x")
    backed_up(job)
    move(job, "f", "other/f")
    os.unlink(at(job, "other/f"))
    backed_up(job)
    assert not os.path.lexists(job.tree + b"/f")


@pytest.mark.parametrize("kinds", ["files", "directories", "a file and a directory"])
@pytest.mark.parametrize("how", ["in one step", "through a temporary name"])
def test_7_a_swap(job: Job, kinds: str, how: str) -> None:
    put(job, *{"files": ["a", "b"], "directories": ["a/1", "b/2"], "a file and a directory": ["a", "b/2"]}[kinds])
    backed_up(job)
    if how == "in one step":
        exchange(at(job, "a"), at(job, "b"))
    else:
        move(job, "a", "tmp")
        move(job, "b", "a")
        move(job, "tmp", "b")
    backed_up_without_copying(job)


def test_7_a_swap_of_a_directory_with_one_inside_another(job: Job) -> None:
    put(job, "a/1", "x/y/b/2")
    backed_up(job)
    exchange(at(job, "a"), at(job, "x/y/b"))
    exchange(at(job, "a"), at(job, "x"))
    backed_up_without_copying(job)


def test_7_a_file_is_renamed_and_then_its_directory(job: Job) -> None:
    put(job, "D/f")
    backed_up(job)
    move(job, "D/f", "D/ff")
    move(job, "D", "D2")
    backed_up_without_copying(job)


def test_7_a_directory_is_moved_into_another_which_is_renamed(job: Job) -> None:
    put(job, "D/f", "E/g")
    backed_up(job)
    move(job, "D", "E/D")
    move(job, "E", "E2")
    backed_up_without_copying(job)


def test_7_a_directory_becomes_the_child_of_what_takes_its_name(job: Job) -> None:
    put(job, "a/f")
    backed_up(job)
    move(job, "a", "tmp")
    os.mkdir(at(job, "a"))
    move(job, "tmp", "a/b")
    backed_up_without_copying(job)
    move(job, "a/b", "tmp")
    os.rmdir(at(job, "a"))
    move(job, "tmp", "a")
    backed_up_without_copying(job)


def test_7_parent_and_child_change_places(job: Job) -> None:
    put(job, "a/b/c/f", "a/g", "a/b/h")
    backed_up(job)
    move(job, "a/b", "tmp")
    move(job, "a", "tmp/b")
    move(job, "tmp", "a")
    backed_up_without_copying(job)


def test_8_two_names_of_which_one_begins_with_the_other(job: Job) -> None:
    put(job, "run1/a", "run10/b", "run1.txt", "run/c")
    backed_up(job)
    move(job, "run1", "done1")
    move(job, "run10", "run1")
    move(job, "run", "run10")
    backed_up_without_copying(job)
    shutil.rmtree(at(job, "run1"))
    backed_up(job)


def test_9_a_directory_is_renamed_again_after_a_run_that_failed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    put(job, "d/f", "d/sub/g", "e/h")
    backed_up(job)
    for number, stage in enumerate(["lift", "place", "finish_objects"]):
        move(job, "d", f"d{number}")
        put(job, f"d{number}/new")
        with monkeypatch.context() as patch:
            patch.setattr(f"lbcore.run.{stage}", fail)
            outcome = job.run()
            assert (outcome.exit_code, outcome.state) == (1, "failed")
        move(job, f"d{number}", "d")
        move(job, "d/sub", "e/sub")
        put(job, "d/newer")
        backed_up(job)
        move(job, "e/sub", "d/sub")


def fail(*_: Any, **__: Any) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("stage", ["_observe", "_begin_applying"])
def test_10_an_interrupted_look_or_plan_is_not_taken_for_a_complete_one(
    job: Job, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(job, "a", "d/b", "d/c")
    backed_up(job)
    before = read_tree(job.tree)
    os.unlink(at(job, "d/b"))
    put(job, "d/new", "e/new")
    with monkeypatch.context() as patch:
        patch.setattr(f"lbcore.run.JobRun.{stage}", fail)
        assert job.run().exit_code == 1
    assert compare_trees(before, job.tree) == []
    backed_up(job)


def test_10_an_observation_that_ends_early_is_not_taken_for_a_complete_one(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lb_job(max_delete="100%")
    put(job, "a/1", "b/2", "c/3")
    backed_up(job)
    before = read_tree(job.tree)
    put(job, "a/new")
    with monkeypatch.context() as patch:
        patch.setattr("lbcore.walk.Walker._report", fail)
        assert job.run().exit_code == 1
    assert compare_trees(before, job.tree) == []
    backed_up(job)


@pytest.mark.parametrize("after", ["file", "directory", "symlink", "fifo"])
@pytest.mark.parametrize("before", ["file", "directory", "symlink", "fifo"])
def test_11_an_object_is_replaced_by_one_of_another_kind(job: Job, before: str, after: str) -> None:
    outside = job.source + b"-outside"
    os.mkdir(outside)
    write(outside + b"/precious", b"untouched")

    def make_directory(path: bytes, content: bytes) -> None:
        os.mkdir(path)
        write(path + b"/" + content, content)

    make: dict[str, Callable[[bytes, bytes], Any]] = {
        "file": lambda path, content: write(path, content * 300_000),
        "directory": make_directory,
        "symlink": lambda path, content: os.symlink(outside + (b"/precious" if content == b"1" else b""), path),
        "fifo": lambda path, content: os.mkfifo(path),
    }
    put(job, "d/x")
    make[before](at(job, "d/it"), b"1")
    backed_up(job)
    if os.path.isdir(at(job, "d/it")) and not os.path.islink(at(job, "d/it")):
        shutil.rmtree(at(job, "d/it"))
    else:
        os.unlink(at(job, "d/it"))
    make[after](at(job, "d/it"), b"2")
    backed_up(job)
    assert compare_trees(read_tree(outside), outside) == []
    with open(outside + b"/precious", "rb") as file:
        assert file.read() == b"untouched"
    assert os.listdir(outside) == [b"precious"]


def test_12_changes_in_the_root_directory_itself(job: Job) -> None:
    backed_up(job)
    put(job, "a", "b", "d/c")
    os.chmod(job.source, 0o711)
    os.setxattr(job.source, "user.root", b"1")
    backed_up(job)
    move(job, "a", "d/a")
    move(job, "d/c", "c")
    os.unlink(at(job, "b"))
    backed_up_without_copying(job)
    for name in os.listdir(job.source):
        path = at(job, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    os.utime(job.source, ns=(0, 5))
    backed_up(job)
    assert os.listdir(job.tree) == []


def test_13_a_file_of_a_tebibyte(job: Job) -> None:
    size = 2**40 + 12345
    with open(at(job, "huge"), "wb") as file:
        try:
            file.truncate(size)
        except OSError:
            pytest.skip("this filesystem holds no file of a tebibyte")
        for place in (0, 2**31 - 1, 2**32, 2**40 - 5):
            file.seek(place)
            file.write(b"data at %d" % place)
    os.chmod(at(job, "huge"), 0o640)
    # The digest of a hole of a tebibyte takes minutes; what matters here is every byte that is no hole.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lbcore.copying._add_zeros", lambda state, count: state.update(b"%d" % count))
        backed_up(job)
        assert os.lstat(job.tree + b"/huge").st_size == size
        assert os.lstat(job.tree + b"/huge").st_blocks < 2000
        with open(at(job, "huge"), "r+b") as file:
            file.seek(2**39)
            file.write(b"more")
        backed_up(job)


@needs_root
@pytest.mark.parametrize("mode", [0o4755, 0o6711, 0o1777, 0o2070])
def test_13_set_user_id_bits_and_owners_of_large_files(job: Job, mode: int) -> None:
    put(job, "large", "small")
    os.truncate(at(job, "large"), 20_000_000)
    for name in ("large", "small"):
        os.chown(at(job, name), 1234, 4321)
        os.chmod(at(job, name), mode)
    backed_up(job)
    for name in ("large", "small"):
        with open(at(job, name), "r+b") as file:
            file.write(b"changed")
        os.chmod(at(job, name), mode)
    backed_up(job)
    os.chown(at(job, "large"), 1, 1)
    backed_up_without_copying(job)


def test_14_a_name_is_never_taken_for_a_command_an_option_or_a_pattern(job: Job) -> None:
    names = [
        b"-e touch${IFS}OWNED",
        b"--delete",
        b"$(touch OWNED)",
        b"`touch OWNED`",
        b"; touch OWNED;",
        b"'; touch OWNED; '",
        b"*",
        b"?",
        b"[a-z]",
        b"\\",
        b"\\x41",
        b" lead",
        b"%p",
    ]
    put(job, *names, *(b"dir " + name + b"/" + name for name in names), "A", "a", "b")
    backed_up(job)
    os.unlink(at(job, b"*"))
    os.unlink(at(job, b"?"))
    move(job, b"[a-z]", b"[!a]")
    backed_up(job)
    for folder, _, files in os.walk(os.path.dirname(job.source)):
        assert not [name for name in files if name == b"OWNED"], folder


def test_15_a_stale_mark_of_a_run_does_not_block_the_next(job: Job) -> None:
    put(job, "a")
    backed_up(job)
    write(job.lb + b"/lock", b"process 1 on elsewhere since long ago\n")
    put(job, "b")
    backed_up(job)


def test_16_the_first_run_with_data_older_than_the_feed_and_a_run_with_nothing_to_do(job: Job) -> None:
    put(job, "old/data", "old/more")
    for path in ("old/data", "old"):
        os.utime(at(job, path), ns=(0, 0))
    first = backed_up(job)
    assert first.counts["files_copied"] == 2
    for _ in range(2):
        nothing = backed_up(job)
        assert nothing.state == "committed"
        counts = nothing.counts
        assert (counts.get("files_copied", 0), counts["objects_new"], counts["objects_removed"]) == (0, 0, 0)


def test_16_the_first_run_of_an_empty_source(job: Job) -> None:
    assert backed_up(job).counts["objects_new"] == 1


def test_16_a_feed_that_begins_late_loses_nothing(lb_job: MakeJob) -> None:
    feed = Feed()
    job = lb_job(feed, detector="feed")
    put(job, "a", "b")
    backed_up(job)
    feed.states.clear()  # as if the feed had just been registered and knew of nothing before
    put(job, "c")
    feed.gap = "the feed was registered anew"
    outcome = job.run()
    assert outcome.exit_code == 5
    assert job.differences() == []
    with job.catalog() as catalog, contextlib.suppress(StopIteration):
        run = catalog.runs.get(outcome.run)
        assert run is not None
        assert (run.scan, run.gap) == (1, "the feed was registered anew")
    backed_up(job)


def test_every_mode_of_a_file_that_its_owner_may_read(job: Job) -> None:
    for mode in (0o400, 0o444, 0o604, 0o4711 | stat.S_ISVTX, 0o2755):
        put(job, f"{mode:o}")
        os.chmod(at(job, f"{mode:o}"), mode)
    os.mkdir(at(job, "d"), 0o700)
    backed_up(job)
