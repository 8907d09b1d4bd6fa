"""What the tests of ``lb restore`` share."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from tests.support.changes import acl, write
from tests.support.source import at

ordinary = pytest.mark.skipif(os.geteuid() == 0, reason="an ordinary user meets permissions that root does not")


def roomy_job(lb_job: MakeJob) -> Job:
    """A job without a brake."""
    return lb_job(max_delete="100%")


def destination(tmp_path: Path) -> Path:
    """A destination that is not there yet."""
    return tmp_path / "restored"


def put(job: Job, name: str | bytes, content: bytes) -> bytes:
    """Make a file of the source, with the directories above it."""
    os.makedirs(os.path.dirname(at(job, name)), exist_ok=True)
    write(at(job, name), content)
    return at(job, name)


def versions(job: Job) -> list[Path]:
    """The kept contents that only earlier points in time show."""
    return [file for file in Path(os.fsdecode(job.lb), "versions").rglob("*") if file.is_file()]


def everything(job: Job) -> None:
    """One of each kind of object that this user can make."""
    put(job, "a/file", b"content")
    put(job, "a/empty", b"")
    put(job, "a/set-uid", b"#!/bin/sh\n")
    os.chmod(at(job, "a/set-uid"), 0o6755)
    put(job, b"a/line\nbreak \xff \\", b"hostile")
    os.link(at(job, "a/file"), at(job, "linked"))
    os.makedirs(at(job, "b/shut"))
    put(job, "b/shut/inside", b"inside")
    os.chmod(at(job, "b/shut"), 0o500)
    os.chmod(at(job, "b"), 0o1777)
    os.symlink(b"no\nsuch\xffplace", at(job, "symlink"))
    os.symlink("a", at(job, "b/to-a-directory"))
    os.mkfifo(at(job, "b/fifo"), 0o620)
    os.mknod(at(job, "b/socket"), stat.S_IFSOCK | 0o755)
    with open(at(job, "a/sparse"), "wb") as file:
        file.truncate(8 << 20)
        file.seek(5 << 20)
        file.write(b"island")
    with open(at(job, "a/hole"), "wb") as file:
        file.truncate(3 << 20)
    with open(at(job, "a/large"), "wb") as file:
        file.write(os.urandom((2 << 20) + 17))
    os.setxattr(at(job, "a/file"), "user.colour", b"\0blue")
    os.setxattr(at(job, "a"), "user.on-a-directory", b"too")
    os.setxattr(at(job, "a/file"), "system.posix_acl_access", acl(user=1, permissions=4))
    os.setxattr(at(job, "a"), "system.posix_acl_default", acl(user=2, permissions=5))
    os.utime(at(job, "a/file"), ns=(1, 123_456_789_987_654_321))
    os.utime(at(job, "symlink"), ns=(1, -1_000_000_007), follow_symlinks=False)
    if os.geteuid() == 0:
        os.mknod(at(job, "b/device"), stat.S_IFCHR | 0o640, os.makedev(1, 3))
        os.mknod(at(job, "b/disk"), stat.S_IFBLK | 0o640, os.makedev(7, 200))
        for name in ("a/file", "a/set-uid", "b", "symlink", "b/fifo"):
            status = os.lstat(at(job, name))
            os.lchown(at(job, name), 1234, 5678)
            if not stat.S_ISLNK(status.st_mode):
                os.chmod(at(job, name), stat.S_IMODE(status.st_mode))
        os.setxattr(at(job, "b"), "trusted.kept", b"by root only")
    os.utime(at(job, "b"), ns=(1, 987_654_321))
    os.utime(job.source, ns=(1, 1_234_567_890_123_456_789))
    os.chmod(job.source, 0o751)
