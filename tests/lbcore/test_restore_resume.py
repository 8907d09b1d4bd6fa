"""``lb restore --resume``: go on where a restore was cut short, and overwrite nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lbcore import copying
from lbcore.restore import writer
from lbcore.testing import compare_trees
from lbcore.testing.job import Job
from tests.support.commands import back_up, lb, output
from tests.support.restoring import destination, everything, put, roomy_job

job = pytest.fixture(roomy_job)
to = pytest.fixture(destination)


@pytest.mark.parametrize("after", range(8))
def test_a_restore_that_was_cut_short_goes_on_and_writes_nothing_twice(
    job: Job, to: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    everything(job)
    back_up(job)
    written: list[int] = []

    def full(incoming: int, outgoing: int | None) -> tuple[int, bytes]:
        if len(written) == after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(incoming)
        return copying.copy_content(incoming, outgoing)

    monkeypatch.setattr(writer, "copy_content", full)
    assert lb(job, "restore", ".", "--to", to).exit_code == 1
    again: list[int] = []

    def count(incoming: int, outgoing: int | None) -> tuple[int, bytes]:
        again.append(incoming)
        return copying.copy_content(incoming, outgoing)

    monkeypatch.setattr(writer, "copy_content", count)
    output(job, "restore", ".", "--to", to, "--resume")
    assert compare_trees(job.source, to) == []
    assert len(again) + len(written) == 8
    again.clear()
    output(job, "restore", ".", "--to", to, "--resume")
    assert (compare_trees(job.source, to), again) == ([], [])


def test_what_is_another_file_is_not_replaced(job: Job, to: Path) -> None:
    for name in ("one", "two", "a/three"):
        put(job, name, b"content")
    back_up(job)
    output(job, "restore", ".", "--to", to)
    before = (to / "one").stat()
    (to / "one").write_bytes(b"CONTENT")
    os.utime(to / "one", ns=(before.st_atime_ns, before.st_mtime_ns))
    result = lb(job, "restore", ".", "--to", to, "--resume")
    assert (result.exit_code, "one: cannot be restored: File exists" in result.stderr) == (1, True)
    assert (to / "one").read_bytes() == b"CONTENT"
    (to / "a/three").write_bytes(b"longer than before")
    (to / "two").unlink()
    result = lb(job, "restore", ".", "--to", to, "--resume")
    assert (result.exit_code, "three exists" in result.stderr) == (2, True), "seen before anything is written"
    assert not (to / "two").exists()
    output(job, "restore", ".", "--to", to, "--resume", "--overwrite")
    assert compare_trees(job.source, to) == []


def test_a_link_or_a_pipe_that_is_another_is_not_replaced(job: Job, to: Path) -> None:
    everything(job)
    back_up(job)
    output(job, "restore", ".", "--to", to)
    (to / "symlink").unlink()
    os.symlink("elsewhere", to / "symlink")
    (to / "linked").unlink()
    (to / "linked").write_bytes((to / "a/file").read_bytes())
    os.utime(to / "linked", ns=(1, (to / "a/file").stat().st_mtime_ns))
    result = lb(job, "restore", ".", "--to", to, "--resume")
    assert result.exit_code == 1
    assert "symlink: cannot be restored: File exists" in result.stderr
    assert os.readlink(to / "symlink") == "elsewhere"
    assert not (to / "linked").samefile(to / "a/file")
