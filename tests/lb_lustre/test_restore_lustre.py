"""``lb restore`` onto a Lustre gives files and directories what they had there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lb_lustre import extras, layout
from lbcore.config.toml import toml_value
from lbcore.testing import compare_trees
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_extras import begin, lay_out
from tests.lb_lustre.test_layout import POOLED
from tests.lb_lustre.test_simulated import backed_up, seen, shell
from tests.support.commands import call

MakeJob = Callable[..., Job]
Restored = Callable[..., tuple[int, str]]


def kept(root: Path) -> dict[bytes, dict[str, bytes]]:
    """What Lustre keeps with each object, as far as it can be given to another."""
    top = os.fsencode(root)
    found = {b"": extras.read(top, os.lstat(top).st_mode)}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top)] = extras.read(path, os.lstat(path).st_mode)
    for one in found.values():
        one.pop(extras.HSM, None)
    return found


@pytest.fixture
def restored(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """``lb restore .`` to a folder; gives the status, and what it says that is wrong."""

    def restore(job: Job, to: Path, *more: str, **options: str | list[str]) -> tuple[int, str]:
        section = "\n".join(f"{key} = {toml_value(value)}" for key, value in options.items())
        config = tmp_path / "lb.toml"
        ends = f'source = "{os.fsdecode(job.source)}"\ntarget = "{os.fsdecode(job.target)}"'
        config.write_text(f"[job.job]\n{ends}\n[job.job.lustre-extras]\n{section}\n")
        result = call(str(config), "restore", ".", "--to", to, *more)
        return result.exit_code, result.stderr

    return restore


def prepared(lustre: Simulated, make_job: MakeJob) -> Job:
    """A job whose source is a directory, beside the places to restore to."""
    (lustre.root / "from").mkdir()
    return make_job("from")


def test_a_backup_that_is_restored_onto_a_lustre_is_laid_out_as_it_was(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = prepared(lustre, make_job)
    begin(lustre, "from")
    shell(
        lustre.root / "from", "setfattr -n user.a -v b a/one; setfacl -m u:7:rx a/one; chmod 700 wide; chown 5:6 wide"
    )
    backed_up(job)
    to = lustre.root / "to"
    assert restored(job, to) == (0, "")
    assert kept(to) == kept(lustre.root / "from")
    assert compare_trees(seen(lustre.root / "from"), seen(to)) == []
    assert (to / "a/one").samefile(to / "a/two")
    assert lustre.ask("project_of", path="to/project") == [1000, 1]
    assert lustre.ask("project_of", path="to/project/owned") == [1000, 0]
    assert lustre.ask("project_of", path="to/project/sub") == [7, 1]


def test_pools_get_other_names_and_one_that_is_missing_is_told_and_costs_no_data(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = prepared(lustre, make_job)
    lay_out(lustre.root / "from/pooled", POOLED)
    (lustre.root / "from/pooled").write_bytes(b"content")
    backed_up(job)
    assert restored(job, lustre.root / "mapped", pool_map=["fast=flash"]) == (0, "")
    blob = kept(lustre.root / "mapped")[b"pooled"][extras.LAYOUT]
    assert layout.pools(layout.parse(blob)) == {b"flash"}
    status, said = restored(job, lustre.root / "missing", pool_map=["fast=gone"])
    assert status == 3
    assert "pooled: not recreated: layout (Invalid argument; pool gone)" in said
    assert (lustre.root / "missing/pooled").read_bytes() == b"content"


def test_without_lfs_directories_are_plain_and_that_is_told(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = prepared(lustre, make_job)
    begin(lustre, "from")
    backed_up(job)
    status, said = restored(job, lustre.root / "to", lfs="/nowhere/lfs")
    assert status == 3
    assert "striped: not recreated: stripes of the directory (No such file or directory)" in said
    assert "a/plain: not recreated: default layout of directories" in said
    assert "2 layouts and the like could not be made anew" in said
    assert compare_trees(seen(lustre.root / "from"), seen(lustre.root / "to")) == []


def test_a_file_whose_content_was_never_at_hand_is_told_and_not_made_up(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = prepared(lustre, make_job)
    shell(lustre.root / "from", "echo one > one; echo two > two")
    lustre.ask("release", path="from/one")
    assert job.run().exit_code == 3
    status, said = restored(job, lustre.root / "to")
    assert (status, "one: not restored: its content was never at hand" in said) == (3, True)
    assert sorted(os.listdir(lustre.root / "to")) == ["two"]


def test_a_released_file_of_which_there_is_a_copy_comes_back_whole(
    lustre: Simulated, make_job: MakeJob, restored: Restored
) -> None:
    job = prepared(lustre, make_job)
    shell(lustre.root / "from", "echo one > one")
    backed_up(job)
    lustre.ask("release", path="from/one")
    assert job.run().exit_code == 0
    to = lustre.root / "to"
    assert restored(job, to) == (0, "")
    assert (to / "one").read_bytes() == b"one\n"
    assert not extras.content_is_away(extras.read(os.fsencode(to / "one"), 0o100644))


def test_elsewhere_the_files_come_back_without_it(
    lustre: Simulated, make_job: MakeJob, tmp_path: Path, restored: Restored
) -> None:
    job = prepared(lustre, make_job)
    begin(lustre, "from")
    backed_up(job)
    to = tmp_path / "elsewhere"
    assert restored(job, to) == (0, "")
    assert compare_trees(seen(lustre.root / "from"), seen(to)) == []
    listed = subprocess.run(["getfattr", "-Rdm", "-", str(to)], capture_output=True, text=True, check=True).stdout
    assert "lov" not in listed
