"""What Lustre keeps with objects goes into the catalog; what is released is never opened."""

from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lb_lustre import extras, layout, recreate
from lbcore.catalog.objects import Row
from lbcore.testing import read_tree
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_layout import MIXED, POOLED
from tests.lb_lustre.test_simulated import backed_up, shell

MakeJob = Callable[..., Job]
TREE = """
mkdir -p a/plain wide project/sub; echo one > a/one; ln a/one a/two; echo text > a/other
ln -s one a/link; mkfifo a/pipe
"""
NOT_COPIED = "its content is not at hand in the source (released to an archive), and not in the backup"
NOT_READ = "its content is not at hand in the source (released to an archive); it was not read"


def lfs(folder: Path, *arguments: str) -> None:
    """``lfs mkdir`` and the like."""
    subprocess.run(["lfs", *arguments], cwd=folder, check=True)


def lay_out(path: Path, one: layout.Layout) -> None:
    """``lfs setstripe``: a new file, or the default of a directory."""
    if not path.exists():
        os.mknod(path, 0o100644)
    os.setxattr(path, layout.XATTR, layout.emit(one))


def give_project(path: Path, project: int) -> None:
    """``lfs project -s -p``."""
    mode = path.stat().st_mode
    recreate.give_project(os.fsencode(path), mode, b"%d" % project)


def begin(lustre: Simulated, below: str = ".") -> None:
    """One of each thing that Lustre keeps."""
    top = lustre.root / below
    shell(top, TREE)
    lay_out(top / "a/mixed", MIXED)
    (top / "a/mixed").write_bytes(b"content")
    lay_out(top / "wide", POOLED)
    (top / "wide/inherits").write_bytes(b"more")
    give_project(top / "project", 1000)
    (top / "project/owned").write_bytes(b"of the project")
    give_project(top / "project/sub", 7)
    lfs(top, "mkdir", "-c", "2", "-i", "1", "-H", "crush", "striped")
    (top / "striped/sharded").write_bytes(b"in a shard")
    lfs(top, "setdirstripe", "-D", "-c", "1", "--max-inherit", "3", "a/plain")


def rows(job: Job) -> dict[bytes, tuple[Row, dict[str, bytes]]]:
    """All that the catalog has now, by a path."""
    with job.catalog() as catalog:
        found = {}
        for row in catalog.objects.all_now():
            names = catalog.names.of(row.obj)
            found[names[0][1] if names else b""] = (row, catalog.extras.get(row.extras))
        return found


def kept(job: Job) -> dict[bytes, dict[str, bytes]]:
    """The extras of each object by its (first) name; names are unique in these trees."""
    return {name: one for name, (_, one) in rows(job).items()}


def states(job: Job, name: str) -> int:
    """How many states of an object the catalog has."""
    with job.catalog() as catalog:
        return len(list(catalog.objects.versions(rows(job)[name.encode()][0].obj)))


# ── What is kept ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_layouts_defaults_projects_and_stripes_are_kept_the_same_by_feed_and_scan(
    lustre: Simulated, make_job: MakeJob
) -> None:
    fed = make_job()
    fed.run()
    begin(lustre)
    assert backed_up(fed).counts["objects_new"] > 10
    found = kept(fed)
    assert layout.parse(found[b"mixed"][extras.LAYOUT]) == layout.template(MIXED)
    assert found[b"inherits"][extras.LAYOUT] == found[b"wide"][extras.DEFAULT_LAYOUT] == layout.emit(POOLED)
    assert (found[b"project"][extras.PROJECT], found[b"owned"][extras.PROJECT]) == (b"1000", b"1000")
    assert (found[b"sub"][extras.PROJECT], found[b"other"].get(extras.PROJECT)) == (b"7", None)
    assert extras.STRIPES.unpack(found[b"striped"][extras.DIRECTORY_LAYOUT])[1:4] == (2, 1, 3)
    assert extras.DEFAULT_DIRECTORY_LAYOUT in found[b"plain"] and extras.DEFAULT_LAYOUT not in found[b"plain"]
    assert all(key.startswith("xattr:") for key in {*found[b"link"], *found[b"pipe"]})
    assert not any(key.startswith(("xattr:trusted.", "xattr:lustre.")) for one in found.values() for key in one)
    fed.configure(detector="scan", changelog=None)
    idle = backed_up(fed, full=True)
    assert (idle.counts["objects_changed"], kept(fed)) == (0, found)


def test_what_is_laid_out_alike_is_stored_once(lustre: Simulated, make_job: MakeJob) -> None:
    shell(lustre.root, "for i in $(seq 50); do echo $i > f$i; done")
    job = make_job()
    backed_up(job)
    assert len({row.extras for row, _ in rows(job).values() if row.mode & 0o100000}) == 1


@pytest.mark.parametrize("detector", ["changelog", "scan"])
def test_a_change_of_the_project_only_is_a_change_of_the_object_and_copies_nothing(
    lustre: Simulated, make_job: MakeJob, detector: str
) -> None:
    shell(lustre.root, TREE)
    job = make_job(detector=detector)
    backed_up(job)
    lustre.later()
    give_project(lustre.root / "a/other", 5)
    changed = backed_up(job)
    assert (changed.counts["objects_changed"], changed.counts["files_copied"]) == (1, 0)
    assert kept(job)[b"other"][extras.PROJECT] == b"5"
    assert states(job, "other") == 2, "how it was before is remembered"


def test_a_change_of_the_layout_only_is_seen_by_the_feed(lustre: Simulated, make_job: MakeJob) -> None:
    shell(lustre.root, TREE)
    lay_out(lustre.root / "a/empty", POOLED)
    job = make_job()
    backed_up(job)
    lay_out(lustre.root / "a/empty", MIXED)
    assert backed_up(job).counts["files_copied"] == 0
    assert layout.parse(kept(job)[b"empty"][extras.LAYOUT]) == layout.template(MIXED)


def test_a_layout_that_is_none_is_named_and_the_file_kept_out_of_the_change(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell(lustre.root, TREE)
    job = make_job()
    backed_up(job)
    real = os.getxattr

    def broken(path: bytes, name: str, *, follow_symlinks: bool = True) -> bytes:
        value = real(path, name, follow_symlinks=follow_symlinks)
        return value[:9] if name == layout.XATTR else value

    (lustre.root / "a/other").write_bytes(b"changed")
    (lustre.root / "a/new").write_bytes(b"new")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getxattr", broken)
        assert job.run().exit_code == 3
    assert Path(os.fsdecode(job.tree), "a/other").read_bytes() == b"text\n"
    assert not Path(os.fsdecode(job.tree), "a/new").exists()
    backed_up(job)


# ── What is released ──────────────────────────────────────────────────────────────────────────────────────────────────


def problems(job: Job, run: int) -> dict[bytes, str]:
    with job.catalog() as catalog:
        return {problem.path: problem.reason for problem in catalog.runs.problems(run)}


@pytest.mark.parametrize("detector", ["changelog", "scan"])
def test_a_released_file_that_was_never_copied_is_recorded_and_listed_and_copied_when_it_is_back(
    lustre: Simulated, make_job: MakeJob, detector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbcore.builtin.scan._RACY_SECONDS", 0)  # what a scan saw, it need not list again
    shell(lustre.root, TREE)
    lustre.ask("release", path="a/one")
    job = make_job(detector=detector)
    first = job.run()
    assert (first.exit_code, first.state, first.counts["files_without_content"]) == (3, "committed", 1)
    assert problems(job, first.run) == {b"a/one": NOT_COPIED}
    row, found = rows(job)[b"one"]
    assert (row.size, row.digest, row.data_run) == (4, None, None)
    assert extras.content_is_away(found)
    stand_in = Path(os.fsdecode(job.tree), "a/one")
    assert (stand_in.read_bytes(), stand_in.samefile(stand_in.with_name("two"))) == (b"", True)
    assert stand_in.stat().st_mtime_ns == (lustre.root / "a/one").stat().st_mtime_ns
    job.configure(verify=["attributes", "checksum"])

    idle = job.run()
    assert (idle.exit_code, idle.counts["objects_changed"], idle.counts["files_without_content"]) == (0, 0, 1)
    assert (idle.problems, idle.counts["files_copied"]) == (0, 0), "it was named once"
    shell(lustre.root, "mv a/one renamed; chmod 640 renamed; rm a/two")
    moved = job.run()
    assert (moved.exit_code, moved.problems, moved.counts["files_copied"]) == (0, 0, 0)
    assert Path(os.fsdecode(job.tree), "renamed").stat().st_mode & 0o7777 == 0o640
    assert lustre.ask("recalls") == [0, 0]

    lustre.ask("recall", path="renamed")
    back = backed_up(job)
    assert (back.counts["files_copied"], back.counts.get("files_without_content", 0)) == (1, 0)
    assert states(job, "renamed") > 1
    assert lustre.ask("recalls") == [0, 0]
    backed_up(job)


@pytest.mark.parametrize("detector", ["changelog", "scan"])
def test_a_copy_from_before_the_release_stays_the_content(lustre: Simulated, make_job: MakeJob, detector: str) -> None:
    shell(lustre.root, TREE)
    job = make_job(detector=detector)
    backed_up(job)
    lustre.ask("release", path="a/one")
    lustre.later()
    os.chmod(lustre.root / "a/one", 0o600)
    outcome = job.run()
    assert (outcome.exit_code, outcome.counts["files_copied"]) == (0, 0)
    assert "files_without_content" not in outcome.counts
    mirrored = Path(os.fsdecode(job.tree), "a/one")
    assert (mirrored.read_bytes(), mirrored.stat().st_mode & 0o7777) == (b"one\n", 0o600)
    row, found = rows(job)[b"one"]
    assert extras.content_is_away(found) and row.digest is not None
    assert lustre.ask("recalls") == [0, 0]
    lustre.ask("recall", path="a/one")
    assert backed_up(job).counts["files_copied"] == 0


def test_what_was_written_and_released_between_two_runs_is_named_each_time_and_the_old_state_kept(
    lustre: Simulated, make_job: MakeJob
) -> None:
    shell(lustre.root, TREE)
    job = make_job()
    backed_up(job)
    shell(lustre.root, "echo longer than before > a/one")
    lustre.ask("release", path="a/one")
    for _ in range(2):
        outcome = job.run()
        assert (outcome.exit_code, problems(job, outcome.run)) == (3, {b"a/one": NOT_READ})
        assert Path(os.fsdecode(job.tree), "a/one").read_bytes() == b"one\n"
    assert lustre.ask("recalls") == [0, 0]
    lustre.ask("recall", path="a/one")
    assert backed_up(job).counts["files_copied"] == 1


@pytest.mark.parametrize("detector", ["changelog", "scan"])
def test_what_was_written_under_the_same_size_and_time_and_released_is_compared_once_it_is_back(
    lustre: Simulated, make_job: MakeJob, detector: str
) -> None:
    shell(lustre.root, TREE)
    job = make_job(detector=detector)
    backed_up(job)
    lustre.later()
    before = (lustre.root / "a/one").stat()
    shell(lustre.root, "printf 'ONE\\n' > a/one")
    os.utime(lustre.root / "a/one", ns=(before.st_atime_ns, before.st_mtime_ns))
    lustre.ask("release", path="a/one")
    for _ in range(2):
        assert job.run().exit_code == 0
        assert Path(os.fsdecode(job.tree), "a/one").read_bytes() == b"one\n"
    assert lustre.ask("recalls") == [0, 0]
    lustre.ask("recall", path="a/one")
    backed_up(job)
    assert Path(os.fsdecode(job.tree), "a/one").read_bytes() == b"ONE\n"


def test_what_is_released_after_it_was_looked_at_is_not_opened_either(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell(lustre.root, TREE)
    job = make_job()
    backed_up(job)
    from lbcore.run import JobRun  # noqa: PLC0415

    begin_applying = JobRun._begin_applying

    def released(run: JobRun, *arguments: object) -> None:
        for path in ("a/one", "a/new"):
            lustre.ask("release", path=path)
        begin_applying(run, *arguments)  # type: ignore[arg-type]

    shell(lustre.root, "echo new > a/new; echo more > a/one")
    with monkeypatch.context() as patch:
        patch.setattr(JobRun, "_begin_applying", released)
        outcome = job.run()
    assert (outcome.exit_code, problems(job, outcome.run)) == (3, {b"a/one": NOT_READ, b"a/new": NOT_READ})
    assert lustre.ask("recalls") == [0, 0]


def test_a_stand_in_that_somebody_removed_is_made_anew(lustre: Simulated, make_job: MakeJob) -> None:
    shell(lustre.root, TREE)
    lustre.ask("release", path="a/other")
    job = make_job(verify=["attributes"])
    assert job.run().exit_code == 3
    stand_in = Path(os.fsdecode(job.tree), "a/other")
    stand_in.unlink()
    os.chmod(lustre.root / "a/other", 0o600)
    assert job.run().exit_code == 4, "it was missing"
    assert (stand_in.read_bytes(), stand_in.stat().st_mode & 0o777) == (b"", 0o600)
    assert job.run().exit_code == 0
    stand_in.unlink()
    os.rename(lustre.root / "a/other", lustre.root / "moved")
    moved = job.run()
    assert (moved.exit_code, moved.problems) == (4, 0), "it was missing again, and moved"
    assert Path(os.fsdecode(job.tree), "moved").read_bytes() == b""
    assert job.run().exit_code == 0
    assert sorted(read_tree(job.tree)) == sorted(read_tree(lustre.root))
    assert lustre.ask("recalls")[1] == 1, "read_tree reads"


def test_the_state_and_the_layout_both_say_that_a_file_is_released() -> None:
    state = struct.Struct("<IIQQ")
    assert extras.content_is_away({extras.HSM: state.pack(0, 0x0D, 1, 2)})
    assert not extras.content_is_away({extras.HSM: state.pack(0, 0x09, 1, 2)})
    assert not extras.content_is_away({extras.HSM: b"short"})
    released = dataclasses.replace(POOLED, pattern=layout.RELEASED | POOLED.pattern)
    assert extras.content_is_away({extras.LAYOUT: layout.emit(released)}), "who is not root sees no more"
    assert not extras.content_is_away({extras.LAYOUT: layout.emit(POOLED)})


def test_damage_of_a_released_file_is_mended_when_it_is_back(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job()
    begin(lustre)
    backed_up(job)
    rotten = Path(os.fsdecode(job.tree), "a/one")
    status = rotten.stat()
    rotten.write_bytes(b"x" * status.st_size)
    os.utime(rotten, ns=(status.st_atime_ns, status.st_mtime_ns))
    lustre.ask("release", path="a/one")
    assert job.command("verify").exit_code == 4
    for _ in range(2):
        job.run()
    lustre.ask("recall", path="a/one")
    backed_up(job)
