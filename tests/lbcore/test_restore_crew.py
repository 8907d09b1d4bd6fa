"""A restore by several threads: the same files, the same messages."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from lbcore import copying
from lbcore.restore import writer
from lbcore.testing import MakeJob, compare_trees
from lbcore.testing.job import Job
from tests.support.commands import back_up, call, configuration, output
from tests.support.restoring import destination, everything, put
from tests.support.running import needs_root

to = pytest.fixture(destination)
WORKERS = 3


@pytest.fixture
def job(lb_job: MakeJob) -> Job:
    return lb_job(max_delete="100%")


def restore(job: Job, to: Path) -> tuple[int, str]:
    """With three threads; the status and what it says that is wrong."""
    result = call(configuration(job, more=f"workers = {WORKERS}"), "restore", ".", "--to", to)
    return result.exit_code, result.stderr


@needs_root
def test_files_are_written_by_several_threads_at_once(job: Job, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(job)
    for folder in range(WORKERS):
        for number in range(20):
            put(job, f"many/{folder}/{number}", b"%d" % number)
    back_up(job)
    together = threading.Barrier(WORKERS)
    met: dict[int, int] = {}

    def meet(incoming: int, outgoing: int | None) -> tuple[int, bytes]:
        me = threading.get_ident()
        if me != threading.main_thread().ident and me not in met:
            met[me] = together.wait(timeout=60)
        return copying.copy_content(incoming, outgoing)

    monkeypatch.setattr(writer, "copy_content", meet)
    assert restore(job, to) == (0, "")
    assert sorted(met.values()) == list(range(WORKERS))
    assert compare_trees(job.source, to) == []


@needs_root
def test_what_one_thread_meets_is_told_and_the_others_go_on(job: Job, to: Path) -> None:
    for number in range(40):
        put(job, f"folder/{number}", b"content of %d" % number)
    back_up(job)
    for number in (3, 17, 31):
        Path(os.fsdecode(job.tree), "folder", str(number)).write_bytes(b"damaged")
    status, said = restore(job, to)
    assert status == 4
    assert [f"folder/{number}: its content in the backup is damaged" in said for number in (3, 16, 17, 31)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert "3 files are damaged in the backup" in said
    names = {name for name in os.listdir(to / "folder") if not name.endswith(".lb-damaged")}
    assert names == {str(number) for number in range(40)} - {"3", "17", "31"}


@needs_root
def test_a_full_disk_ends_all_threads_and_leaves_nothing_half_done(
    job: Job, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        put(job, f"folder/{number}", b"content of %d" % number)
    back_up(job)
    written: list[int] = []

    def full(incoming: int, outgoing: int | None) -> tuple[int, bytes]:
        if len(written) > 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(incoming)
        return copying.copy_content(incoming, outgoing)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "copy_content", full)
        status, said = restore(job, to)
    assert (status, "No space left on device" in said) == (1, True)
    names = os.listdir(to / "folder")
    assert len(names) == len(written) < 100
    assert not [name for name in names if name.startswith(".lb-restore-")]
    output(job, "restore", ".", "--to", to, "--resume")
    assert compare_trees(job.source, to) == []
