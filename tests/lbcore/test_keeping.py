"""What a plugin keeps with objects, and files whose content is away, on a filesystem that a test makes up."""

from __future__ import annotations

import errno
import os
import pkgutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from lbcore import hookimpl
from lbcore.plugins.types import ExtrasPlugin
from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from tests.support.commands import configuration
from tests.support.running import problems

OFFLINE = "user.offline"


@dataclass(frozen=True, kw_only=True, slots=True)
class Archived:
    """Files with an attribute are offline. Their content is here all the same: it must not be looked at."""

    where: bytes

    def applies(self, root: bytes) -> bool:
        return root == self.where

    def read(self, path: bytes, mode: int) -> dict[str, bytes]:
        names = os.listxattr(path, follow_symlinks=False)
        return {"test:offline": os.getxattr(path, OFFLINE)} if OFFLINE in names else {}

    def content_is_away(self, extras: Mapping[str, bytes]) -> bool:
        return "test:offline" in extras

    def make(self, directory: int, name: bytes, mode: int, extras: Mapping[str, bytes]) -> list[str]:
        if stat.S_ISDIR(mode):
            os.mkdir(name, 0o700, dir_fd=directory)
        else:
            os.mknod(name, stat.S_IFREG | 0o600, dir_fd=directory)
        return []

    def give(self, directory: int, name: bytes, mode: int, extras: Mapping[str, bytes]) -> list[str]:
        return []


class Plugin:
    """Registers it."""

    def __init__(self) -> None:
        self.where = b""

    @hookimpl
    def lb_register_extras(self) -> Iterable[ExtrasPlugin]:
        yield ExtrasPlugin(name="archived", summary="offline files", create=lambda _: Archived(where=self.where))


def job_of(lb_job: MakeJob) -> Job:
    plugin = Plugin()
    job = lb_job(plugin, max_delete="100%", racy_seconds=0)
    plugin.where = job.source
    return job


def offline(job: Job, name: str, content: bytes) -> Path:
    path = Path(os.fsdecode(job.source), name)
    path.write_bytes(content)
    os.setxattr(path, OFFLINE, b"yes")
    return path


def mirrored(job: Job, name: str) -> bytes:
    return Path(os.fsdecode(job.tree), name).read_bytes()


def test_a_new_file_that_is_offline_has_an_empty_one_in_the_mirror_until_it_is_back(lb_job: MakeJob) -> None:
    job = job_of(lb_job)
    path = offline(job, "file", b"content")
    Path(os.fsdecode(job.source), "other").write_bytes(b"other")
    first = job.run()
    assert (first.exit_code, first.counts["files_copied"], first.counts["files_without_content"]) == (3, 1, 1)
    assert list(problems(job, first.run)) == [b"file"]
    assert (mirrored(job, "file"), mirrored(job, "other")) == (b"", b"other")
    for _ in range(2):
        idle = job.run()
        assert (idle.exit_code, idle.problems, idle.counts["objects_changed"]) == (0, 0, 0), "it was named"
        assert idle.counts["files_without_content"] == 1
        assert "2 files, 12 bytes; of 1 of them no content, which was never at hand" in job.command("status").stdout
        assert "of 1 files the backup holds no content" in job.command("run").stdout
    os.removexattr(path, OFFLINE)
    back = job.run()
    assert (back.exit_code, back.counts["files_copied"], mirrored(job, "file")) == (0, 1, b"content")
    assert "no content" not in job.command("status").stdout + job.command("run").stdout


def test_each_run_names_the_files_that_are_new_without_content_and_those_that_are_not_as_they_were(
    lb_job: MakeJob,
) -> None:
    job = job_of(lb_job)
    offline(job, "a", b"content")
    os.mkdir(os.path.join(job.source, b"d"))
    offline(job, "d/b", b"content")
    assert job.run().exit_code == 3
    named = []
    for change in (
        lambda: offline(job, "c", b"content"),
        lambda: Path(os.fsdecode(job.source), "a").chmod(0o600),
        lambda: offline(job, "a", b"longer content"),
        lambda: os.utime(Path(os.fsdecode(job.source), "d/b"), (1, 2)),
        lambda: Path(os.fsdecode(job.source), "d").rename(Path(os.fsdecode(job.source), "e")),
        lambda: offline(job, "d", b"content"),
    ):
        change()
        outcome = job.run()
        found = list(problems(job, outcome.run))
        assert outcome.exit_code == (3 if found else 0)
        named.append(found)
    assert named == [[b"c"], [], [b"a"], [b"d/b"], [], [b"d"]]
    assert outcome.counts["files_without_content"] == 4


def test_what_the_backup_holds_of_a_file_stays_while_it_is_offline(lb_job: MakeJob) -> None:
    job = job_of(lb_job)
    path = Path(os.fsdecode(job.source), "file")
    path.write_bytes(b"content")
    assert job.run().exit_code == 0
    before = path.stat()
    path.write_bytes(b"CONTENT")  # nobody must see it
    offline(job, "file", b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (job.run().exit_code, mirrored(job, "file")) == (0, b"content")
    path.write_bytes(b"longer content")
    for _ in range(2):
        outcome = job.run()
        assert (outcome.exit_code, list(problems(job, outcome.run))) == (3, [b"file"])
        assert mirrored(job, "file") == b"content"
    os.removexattr(path, OFFLINE)
    assert (job.run().exit_code, mirrored(job, "file")) == (0, b"longer content")


def test_a_file_that_is_offline_may_move_and_go_like_any_other(lb_job: MakeJob) -> None:
    job = job_of(lb_job)
    path = offline(job, "file", b"content")
    job.run()
    os.link(path, path.with_name("linked"))
    path.rename(path.with_name("moved"))
    assert (job.run().exit_code, job.run().exit_code) == (0, 0)
    names = sorted(os.listdir(job.tree))
    assert names == [b"linked", b"moved"]
    path.with_name("linked").unlink()
    path.with_name("moved").unlink()
    assert (job.run().exit_code, os.listdir(job.tree)) == (0, [])


def test_only_keepers_that_know_the_filesystem_are_asked(lb_job: MakeJob) -> None:
    job = lb_job(Plugin())
    offline(job, "file", b"content")
    assert (job.run().exit_code, mirrored(job, "file")) == (0, b"content")
    assert "archived" not in configuration(job), "it has no options"


@pytest.mark.parametrize("where", ["lbcore.apply.place.make", "lbcore.apply.place._mark", "lbcore.apply.finish._set",
                                   "lbcore.apply.finish._mark", "lbcore.run.runfile.write"])  # fmt: skip
@pytest.mark.parametrize("after", [False, True])
def test_a_run_cut_short_while_it_enters_files_that_are_offline_goes_on(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch, where: str, after: bool
) -> None:
    job = job_of(lb_job)
    for name in ("one", "two", "three"):
        path = offline(job, name, b"content")
        path.chmod(0o640)
        os.utime(path, (1, 2))
    Path(os.fsdecode(job.source), "other").write_bytes(b"other")
    module, _, function = where.rpartition(".")
    real = getattr(pkgutil.resolve_name(module), function)
    calls: list[object] = []

    def cut(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2 or where.endswith(("_mark", "write")):
            if after:
                real(*arguments)
            raise OSError(errno.EIO, "cut short here")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(where, cut)
        assert job.run().exit_code == 1
    outcome = job.run()
    assert (outcome.exit_code, outcome.counts["files_without_content"]) == (3, 3)
    # Also what the attempt before had entered. Where only the commit was left, another run has followed by now.
    named = [path for run in (1, 2) for path in problems(job, run)]
    assert named == [b"one", b"three", b"two"]
    for name in ("one", "two", "three"):
        there = Path(os.fsdecode(job.tree), name).stat()
        assert (there.st_size, there.st_mode & 0o777, there.st_mtime) == (0, 0o640, 2)
    job.configure(verify=["attributes", "checksum"])
    assert job.run().exit_code == 0
    for name in ("one", "two", "three"):
        os.removexattr(Path(os.fsdecode(job.source), name), OFFLINE)
    assert (job.run().exit_code, job.differences()) == (0, [])
