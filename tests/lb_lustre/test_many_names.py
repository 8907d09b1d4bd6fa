"""What no record and no link EA tells: more names than a link EA holds, entries removed without their object."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from lb_lustre import link_ea
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_simulated import backed_up, settle, shell
from tests.support.running import problems

MakeJob = Callable[..., Job]
LINKS = "mkdir -p {0}; for n in $(seq {1} {2}); do ln file {0}/$(printf 'a-name-of-some-length-%04d' $n); done;"
"""In a folder, so many names for ``file``; a link EA holds some seventy of them."""


@pytest.fixture
def job(lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> Job:
    settle(monkeypatch)
    made = make_job()
    shell(lustre.root, "echo content > file; mkdir new; " + LINKS.format("one", 1, 100) + LINKS.format("two", 1, 50))
    backed_up(made)
    ea = os.getxattr(lustre.root / "file", link_ea.XATTR)
    assert len(link_ea.parse(ea).names) < 151
    return made


def test_all_names_are_kept_when_something_else_changed(lustre: Simulated, job: Job) -> None:
    shell(lustre.root, "chmod 600 file")
    outcome = backed_up(job)
    assert (outcome.counts["files_copied"], outcome.counts["objects_changed"]) == (0, 1)


def test_names_that_come_and_go_are_found_in_their_directories(lustre: Simulated, job: Job) -> None:
    changes = "rm one/*7 two/*3; mv one/*-0001 two/moved; mv file new/; mv two three; cd new;"
    shell(lustre.root, changes + LINKS.format("../four/five", 1, 20))
    assert backed_up(job).counts["files_copied"] == 0
    shell(lustre.root, "rm -r one three four")
    backed_up(job)
    shell(lustre.root, "rm -r new")
    backed_up(job)


def test_a_new_file_with_many_names_is_backed_up_at_once(lustre: Simulated, job: Job) -> None:
    shell(lustre.root, "cd new; echo other > file; " + LINKS.format("../two/deep", 1, 150) + LINKS.format("here", 1, 9))
    outcome = backed_up(job)
    assert outcome.counts["files_copied"] == 1
    assert (
        len(
            {os.lstat(os.path.join(job.tree, b"new/here", name)).st_ino for name in os.listdir(job.tree + b"/new/here")}
        )
        == 1
    )


def test_names_that_were_not_found_are_counted_and_looked_for_again(lustre: Simulated, make_job: MakeJob) -> None:
    shell(lustre.root, "mkdir part; echo x > part/file; cd part;" + LINKS.format("../outside", 1, 150))
    part = make_job("part")
    backed_up(part)
    shell(lustre.root, "chmod 640 part/file")
    for _ in range(2):
        outcome = part.run()
        assert outcome.exit_code == 3
        assert "names were not found" in problems(part, outcome.run)[b"file"]
        assert outcome.counts.get("objects_removed", 0) == 0


def test_an_entry_that_was_removed_without_its_object_is_missed_in_its_directory(lustre: Simulated, job: Job) -> None:
    shell(lustre.root, "echo broken > new/broken; echo fine > new/fine; echo top > top")
    backed_up(job)
    for path in ("new/broken", "top"):
        lustre.ask("rm_entry", path=path)
    assert backed_up(job).counts["objects_removed"] == 2
