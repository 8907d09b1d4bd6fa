"""Backups of a simulated Lustre, driven by its changelogs: real programs change it through the kernel."""

from __future__ import annotations

import dataclasses
import email
import errno
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lb_lustre import changelog, feed, fid
from lbcore import _posix
from lbcore.run import Outcome
from lbcore.testing import Tree, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.support.points import read_point

MakeJob = Callable[..., Job]
OF_SERVERS = ("lustre.lov", *("trusted." + name for name in ("lma", "link", "lov", "lmv", "dmv", "hsm")))


def seen(path: str | bytes | Path) -> Tree:
    """A tree, without what the servers keep for themselves."""
    return {
        name: dataclasses.replace(node, xattrs=tuple(one for one in node.xattrs if one[0] not in OF_SERVERS))
        for name, node in read_tree(path).items()
    }


def backed_up(job: Job, *, status: int = 0, full: bool = False) -> Outcome:
    outcome = job.run(full=full)
    assert (outcome.exit_code, outcome.state, outcome.message) == (status, "committed", ""), outcome
    assert compare_trees(seen(job.source), seen(job.tree)) == []
    return outcome


def shell(folder: Path, script: str) -> None:
    """Real programs change the tree."""
    subprocess.run(["bash", "-e", "-c", script], cwd=folder, check=True)


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read twice counts as committed at once."""
    monkeypatch.setattr(changelog, "_SETTLED_NS", 0)


SETUP = """
mkdir -p a/b a/empty c; echo one > a/one; echo two > a/b/two; ln a/one c/link; ln -s one a/symlink; mkfifo a/pipe
printf new > $'a/a\\nname'; setfattr -n user.note -v yes a/one; truncate -s 1M a/sparse; echo x >> a/sparse
"""
CHANGE = """
mv a/b c/; echo more >> c/b/two; rm a/empty -r; mkdir a/empty; ln c/b/two a/two; chmod 600 a/one
setfattr -x user.note a/one; mv a/a* c/renamed; rm a/pipe; echo file > a/pipe; mv c d; mkdir c; mv d/link c/
touch -d 2001-01-01 a/symlink; tar cf a/all.tar d
sed -i s/two/TWO/ d/b/two; truncate -s 3 a/sparse; : > gone; rm gone
"""


def test_what_real_programs_change_is_brought_and_nothing_else_is_looked_at(
    lustre: Simulated, make_job: MakeJob
) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    first = backed_up(job)
    assert first.counts["files_copied"] == 4
    points = {first.run: seen(lustre.root)}
    shutil.copytree(os.path.dirname(email.__file__), lustre.root / "large", copy_function=_brief)
    points[backed_up(job).run] = seen(lustre.root)
    shell(lustre.root, CHANGE)
    changed = backed_up(job)
    points[changed.run] = seen(lustre.root)
    assert changed.counts["files_copied"] <= 6
    assert changed.counts["objects_new"] + changed.counts["objects_changed"] < 25
    idle = backed_up(job)
    assert (idle.counts["objects_changed"], idle.counts["files_copied"]) == (0, 0)
    for run, tree in points.items():
        assert compare_trees(tree, read_point(job.target, run)) == [], run


def _brief(source: str, target: str) -> None:
    Path(target).write_bytes(b"some")


def test_ids_are_fids_for_a_scan_too(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job(detector="scan", users=())
    shell(lustre.root, SETUP)
    backed_up(job)
    with job.catalog() as catalog:
        ids = {row.id for row in catalog.objects.all_now()}
    assert fid.ROOT in ids
    assert fid.parse(lustre.ask("fid_of", path="a/b/two")) in ids
    top = os.open(lustre.root, os.O_RDONLY)
    try:
        assert _posix.has_fids(top)
        assert _posix.look(top, b"a")[0] == fid.parse(lustre.ask("fid_of", path="a"))
    finally:
        os.close(top)


def test_a_job_may_begin_with_scans_and_go_on_with_the_feed(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job(detector="scan")
    shell(lustre.root, SETUP)
    backed_up(job)
    options = {"filesystem": "simfs", "devices": str(lustre.devices)}
    job.configure(detector="changelog", changelog=options)
    shell(lustre.root, CHANGE)
    outcome = backed_up(job, status=5)  # what changed before it was registered, no record tells
    assert outcome.counts["objects_new"] < 10
    shell(lustre.root, "echo more >> d/b/two")
    backed_up(job)


def test_a_job_of_a_subdirectory_sees_what_comes_and_goes_and_nothing_of_the_rest(
    lustre: Simulated, make_job: MakeJob
) -> None:
    (lustre.root / "inside").mkdir()
    job = make_job("inside", exclude=["*.tmp", "/cache"])
    source = lustre.root / "inside"
    shell(lustre.root, "mkdir -p inside/d outside/far; echo 1 > inside/d/file; echo 2 > outside/far/file")
    backed_up(job)
    shell(
        lustre.root,
        "mv outside/far inside/; mv inside/d outside/; echo 3 > outside/other; ln inside/far/file outside/x",
    )
    backed_up(job)
    shell(
        lustre.root, "echo 4 > outside/third; mkdir outside/new; mv inside/far/file outside/new; echo 5 > inside/kept"
    )
    backed_up(job)
    shell(
        lustre.root,
        "mkdir inside/cache inside/k; echo 6 > inside/cache/f; echo 7 > inside/k/a.tmp; mv inside/kept inside/k",
    )
    assert job.run().exit_code == 0
    assert sorted(read_tree(job.tree)) == [b"", b"far", b"k", b"k/kept"]
    with job.catalog() as catalog:
        assert catalog.hints.count() == 0, "nothing outside is kept in mind"
    assert source.is_dir()


def test_a_file_that_stays_open_is_looked_at_again_though_no_record_tells(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    with open(lustre.root / "a/log", "wb", buffering=0) as log:
        for line in (b"one\n", b"two\n", b"three\n", b"four\n"):
            log.write(line)
            recorded = lustre.last()
            backed_up(job)
            assert lustre.last() == recorded
    backed_up(job)
    with job.catalog() as catalog:
        assert catalog.hints.flags(fid.parse(lustre.ask("fid_of", path="a/log"))) == 0, "it is closed"


def test_what_was_written_shortly_before_is_compared_again(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job(racy_seconds=3600)
    shell(lustre.root, SETUP)
    backed_up(job)
    before = os.stat(lustre.root / "a/one")
    content = lustre.folder / "contents/live" / fid.parse(lustre.ask("fid_of", path="a/one")).hex()
    content.write_bytes(b"ONE\n")  # as if a client's pages had arrived late: no record, the same size and times
    assert os.stat(lustre.root / "a/one").st_mtime_ns == before.st_mtime_ns
    backed_up(job)


# ── What the servers keep, and what may happen to it ──────────────────────────────────────────────────────────────────


def test_records_are_cleared_once_they_were_read_again_and_never_before(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    backed_up(job)
    assert lustre.cleared() == [0, 0], "what was read moments ago may not be committed on the server"
    settle(monkeypatch)
    upto = lustre.last()
    shell(lustre.root, CHANGE)
    backed_up(job)
    assert lustre.cleared() == upto
    upto = lustre.last()
    backed_up(job)
    backed_up(job)
    assert lustre.cleared() == upto
    shell(lustre.root, "echo again > a/again")
    backed_up(job)


def test_times_that_were_not_recorded_again_are_seen_all_the_same(lustre: Simulated, make_job: MakeJob) -> None:
    """The server records one change of times of an object, and no second one until something is cleared."""
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    recorded = lustre.last()
    os.utime(lustre.root / "a/one", (1, 1_000_000_000))
    assert lustre.last() == recorded
    backed_up(job)


@pytest.mark.parametrize("what", ["deregister", "reset", "lose", "purge"])
def test_a_feed_that_lost_something_is_a_gap_and_the_run_scans(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    settle(monkeypatch)
    monkeypatch.setattr(feed, "_HOLE_SECONDS", 0)
    job = make_job()
    shell(lustre.root, SETUP)
    for _ in range(3):
        backed_up(job)
    assert min(lustre.cleared()) > 0
    shell(lustre.root, "for i in 1 2 3 4 5 6 7 8; do echo $i > file-$i; mkdir dir-$i; done")
    for mdt, (cleared, last) in enumerate(zip(lustre.cleared(), lustre.last(), strict=True)):
        if what == "deregister":
            lustre.ask("deregister", mdt=mdt, user="cl1-lb-job")
        elif what == "reset":
            lustre.ask("damage", mdt=mdt, what="reset")
        elif what == "lose":
            lustre.ask("damage", mdt=mdt, what="lose", first=last - 3, last=last - 1)
        else:
            lustre.ask("damage", mdt=mdt, what="lose", first=cleared + 1, last=cleared + 2)
    shell(lustre.root, "echo unseen > unseen")
    outcome = backed_up(job, status=5)
    with job.catalog() as catalog:
        run = catalog.runs.get(outcome.run)
        assert run is not None and run.gap is not None and "MDT0000" in run.gap
    shell(lustre.root, "rm file-1; echo later > later")
    assert job.run().exit_code in (0, 5)
    backed_up(job, full=True, status=5) if what in ("deregister", "reset") else backed_up(job)


def test_records_of_a_crashed_server_whose_indices_are_used_again_are_not_missed(
    lustre: Simulated, make_job: MakeJob
) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    shell(lustre.root, "echo 1 > x; echo 2 > y; echo 3 > z; mkdir q")
    backed_up(job)
    for mdt in (0, 1):
        lustre.ask("damage", mdt=mdt, what="roll_back", count=6)
    shell(lustre.root, "echo 11 >> x; echo 22 >> a/one; mv q r; echo 33 > a/b/two; chmod 640 a/sparse; mkdir a/p c/p")
    backed_up(job)


@pytest.mark.parametrize("call", ["read", "clear"])
def test_a_run_cut_short_while_it_reads_or_clears_misses_nothing(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    settle(monkeypatch)
    job = make_job()
    shell(lustre.root, SETUP)
    for _ in range(3):
        backed_up(job)
    for place in range(4):
        shell(lustre.root, f"echo {place} > f{place}; echo {place} >> a/one; mkdir m{place}; mv m{place} n{place}")
        calls = itertools.count()
        real = getattr(feed.Feed, call)

        def cut(*arguments: Any, real: Any = real, calls: Any = calls, place: int = place) -> Any:
            if next(calls) == place:
                raise OSError(errno.EIO, "cut short here")
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(feed.Feed, call, cut)
            assert job.run().exit_code in (0, 1)
        backed_up(job)


def test_a_server_that_is_not_connected_stops_the_run(lustre: Simulated, make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job()
    shell(lustre.root, SETUP)
    backed_up(job)
    (tmp_path / "dev").mkdir()
    for device in lustre.devices.iterdir():
        os.symlink(device, tmp_path / "dev" / device.name)
    os.unlink(tmp_path / "dev" / "changelog-simfs-MDT0001")
    job.configure(changelog={"filesystem": "simfs", "devices": str(tmp_path / "dev")})
    outcome = job.run()
    assert (outcome.exit_code, "MDT0001 of 'simfs' is not connected" in outcome.message) == (1, True)
    job.configure(changelog={"filesystem": "other", "devices": str(lustre.devices)})
    outcome = job.run()
    assert (outcome.exit_code, "the changelogs of 'simfs' so far" in outcome.message) == (1, True)
    job.configure(changelog={"devices": str(lustre.devices)})
    outcome = job.run()
    assert (outcome.exit_code, "name the filesystem in the option 'filesystem'" in outcome.message) == (1, True)


@pytest.mark.parametrize("again", [False, True])
def test_a_user_that_is_gone_before_anything_was_cleared_is_missed(
    lustre: Simulated, make_job: MakeJob, again: bool
) -> None:
    shell(lustre.root, SETUP)
    job = make_job()
    backed_up(job)
    shell(lustre.root, "echo seen > a/seen")
    backed_up(job)
    assert lustre.cleared() == [0, 0]
    for mdt in range(2):
        lustre.ask("deregister", mdt=mdt, user=next(iter(lustre.ask("users", mdt=mdt)["users"])))
    shell(lustre.root, "echo lost > a/lost")
    if again:
        options = {"filesystem": "simfs", "devices": str(lustre.devices), "users": list(lustre.register("lb-new"))}
        job.configure(changelog=options)
    backed_up(job, status=5)


def test_a_job_that_scanned_before_it_was_registered_scans_once_more(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job(detector="scan", users=())
    shell(lustre.root, SETUP)
    backed_up(job)
    shell(lustre.root, "echo new > a/missed; echo more >> a/one; rm a/pipe")
    options = {"filesystem": "simfs", "devices": str(lustre.devices), "users": list(lustre.register())}
    job.configure(detector="changelog", changelog=options)
    backed_up(job, status=5)
    backed_up(job)
