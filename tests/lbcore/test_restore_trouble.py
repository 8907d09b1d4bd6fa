"""``lb restore`` of damaged backups, to full disks, by users who may not do everything."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbcore.restore import writer
from lbcore.testing import compare_trees
from lbcore.testing.job import Job
from tests.support.commands import back_up, call, configuration, lb, output
from tests.support.restoring import destination, ordinary, put, roomy_job, versions
from tests.support.running import needs_root
from tests.support.source import at

job = pytest.fixture(roomy_job)
to = pytest.fixture(destination)


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
        "restore again with --resume\n"
    )
    assert os.listdir(to) == []


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
    os.link(at(job, "shut/deep/file"), at(job, "linked"))
    back_up(job)
    with contextlib.closing(sqlite3.connect(job.lb + b"/job.db")) as database:
        database.execute("UPDATE object SET mode = ? WHERE obj = (SELECT obj FROM name WHERE name = ?)",
                         (stat.S_IFDIR, b"shut"))  # fmt: skip
        database.commit()

    output(job, "restore", "shut", "linked", "--to", to)

    assert stat.S_IMODE((to / "shut").stat().st_mode) == 0
    (to / "shut").chmod(0o700)
    assert (to / "shut/deep/file").samefile(to / "linked")
    assert (to / "shut/deep").stat().st_mtime_ns == os.stat(at(job, "shut/deep")).st_mtime_ns


@needs_root
def test_what_an_ordinary_user_cannot_set_is_counted_and_said(
    job: Job, to: Path, as_nobody: Callable[[Callable[[], int]], int], capfd: pytest.CaptureFixture[str]
) -> None:
    put(job, "mine", b"content")
    put(job, "a/others", b"content")
    os.mknod(at(job, "device"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chown(at(job, "a/others"), 1234, 5678)
    os.chmod(at(job, "a/others"), 0o4755)
    for name in (job.source, at(job, "mine"), at(job, "a"), at(job, "device")):
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


@pytest.fixture
def read_only(job: Job) -> Iterator[Callable[[], None]]:
    """Makes the target one that cannot be written, until the test ends."""
    done: list[bool] = []

    def protect() -> None:
        done.append(True)
        if os.geteuid() == 0:
            mount: list[str | bytes] = ["mount", "--bind", job.target, job.target]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                done.clear()
                pytest.skip("root may not mount here")
            subprocess.run(["mount", "-o", "remount,bind,ro", job.target], check=True)
        else:
            os.chmod(job.lb, 0o500)

    yield protect
    if done and os.geteuid() == 0:
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
