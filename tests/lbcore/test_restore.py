"""``lb restore``: what comes out is what was there at that point in time."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore.apply import arriving, lift, place
from lbcore.points import local_time
from lbcore.testing import MakeJob, Tree, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import KINDS, Change, Changer
from tests.support.commands import back_up, call, configuration, lb, output
from tests.support.restoring import destination, everything, put, roomy_job, versions
from tests.support.source import at

job = pytest.fixture(roomy_job)
to = pytest.fixture(destination)


def test_the_whole_tree_comes_out_as_it_was(job: Job, to: Path) -> None:
    everything(job)
    before = read_tree(job.source)
    back_up(job)

    said = output(job, "restore", ".", "--to", to)

    assert compare_trees(before, to) == []
    files = len({node.links or name for name, node in before.items() if node.kind == "file"})
    assert said == f"job: restored {len(before)} objects of run 1 to {to} ({files} files, 13.6 MB)\n"


def test_the_backup_is_not_changed_by_restoring(job: Job, to: Path) -> None:
    everything(job)
    back_up(job)
    before = read_tree(job.tree)

    output(job, "restore", ".", "--to", to)

    assert compare_trees(before, job.tree) == []


ROUNDS = st.lists(
    st.lists(st.builds(Change, st.sampled_from(sorted(KINDS)), *[st.integers(0, 40)] * 3), max_size=10),
    min_size=1,
    max_size=4,
)


@given(rounds=ROUNDS)
@settings(deadline=None, max_examples=25, database=None)
def test_each_point_in_time_equals_what_the_source_was_then(
    rounds: list[list[Change]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = os.fsencode(tmp_path_factory.mktemp("case"))
    job = Job(folder, max_delete="100%")
    changer = Changer(job.source, job.source + b"-outside")
    points: dict[int, Tree] = {}
    for changes in rounds:
        for change in changes:
            changer.make(change)
        points[back_up(job)] = read_tree(job.source)
    for run, source in points.items():
        to = Path(os.fsdecode(folder), f"run-{run}")
        output(job, "restore", "--at", str(run), ".", "--to", to)
        assert compare_trees(source, to) == [], f"run {run}"
    shutil.rmtree(folder)


def test_a_renamed_and_overwritten_file_comes_out_as_it_was_under_its_old_name(job: Job, to: Path) -> None:
    put(job, "old/name", b"first")
    first = back_up(job)
    os.rename(at(job, "old"), at(job, "new"))
    os.rename(at(job, "new/name"), at(job, "new/other"))
    put(job, "new/other", b"second, longer")
    put(job, "new/name", b"another file")
    back_up(job)

    output(job, "restore", "--at", str(first), "old/name", "--to", to)
    output(job, "restore", "new/other", "new/name", "--to", to / "now")

    assert (to / "name").read_bytes() == b"first"
    assert (to / "now/other").read_bytes() == b"second, longer"
    assert (to / "now/name").read_bytes() == b"another file"


def test_a_file_that_was_only_renamed_and_given_another_mode_is_read_from_the_mirror(job: Job, to: Path) -> None:
    put(job, "file", b"same")
    os.chmod(at(job, "file"), 0o640)
    first = back_up(job)
    os.rename(at(job, "file"), at(job, "elsewhere"))
    os.chmod(at(job, "elsewhere"), 0o600)
    back_up(job)
    assert versions(job) == []

    output(job, "restore", "--at", str(first), "file", "--to", to)

    assert (to / "file").read_bytes() == b"same"
    assert stat.S_IMODE((to / "file").stat().st_mode) == 0o640


def test_hard_links_are_those_of_the_point_in_time(job: Job, to: Path) -> None:
    put(job, "a", b"one")
    os.link(at(job, "a"), at(job, "b"))
    first = back_up(job)
    os.unlink(at(job, "b"))
    put(job, "b", b"now apart")
    os.link(at(job, "a"), at(job, "c"))
    second = back_up(job)

    output(job, "restore", "--at", str(first), ".", "--to", to / "1")
    output(job, "restore", "--at", str(second), ".", "--to", to / "2")

    assert (to / "1/a").samefile(to / "1/b")
    assert (to / "2/a").samefile(to / "2/c")
    assert not (to / "2/a").samefile(to / "2/b")
    assert (to / "2/a").stat().st_nlink == 2


def test_hard_links_are_kept_across_the_paths_of_one_command(job: Job, to: Path) -> None:
    put(job, "x/one", b"shared")
    put(job, "y/own", b"")
    os.link(at(job, "x/one"), at(job, "y/two"))
    os.link(at(job, "x/one"), at(job, "three"))
    back_up(job)

    output(job, "restore", "x", "y", "three", "--to", to)

    assert (to / "x/one").samefile(to / "y/two")
    assert (to / "x/one").samefile(to / "three")


def test_a_directory_that_became_a_file_is_a_directory_again(job: Job, to: Path) -> None:
    put(job, "thing/inside", b"inside")
    first = back_up(job)
    shutil.rmtree(at(job, "thing"))
    put(job, "thing", b"a file")
    second = back_up(job)

    output(job, "restore", "--at", str(first), "thing", "--to", to / "1")
    output(job, "restore", "--at", str(second), "thing", "--to", to / "2")

    assert (to / "1/thing/inside").read_bytes() == b"inside"
    assert (to / "2/thing").read_bytes() == b"a file"


def test_holes_stay_holes(job: Job, to: Path) -> None:
    with open(at(job, "sparse"), "wb") as file:
        file.truncate(64 << 20)
        file.seek(40 << 20)
        file.write(b"island")
    back_up(job)

    output(job, "restore", "sparse", "--to", to)

    assert (to / "sparse").stat().st_size == 64 << 20
    assert (to / "sparse").stat().st_blocks * 512 < 1 << 20


def test_a_path_longer_than_the_kernel_takes_is_restored(job: Job, to: Path) -> None:
    names = [b"d%03d-" % number + b"x" * 200 for number in range(30)]
    at = os.open(job.source, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=at)
        deeper = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(os.open(b"bottom", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    back_up(job)

    output(job, "restore", ".", "--to", to / "all")
    output(job, "restore", b"/".join([*names, b"bottom"]), "--to", to / "one")

    assert compare_trees(job.source, to / "all") == []
    assert (to / "one/bottom").exists()
    for folder in (job.source, job.target, to):
        subprocess.run(["rm", "-r", folder], check=True)  # Python's own rmtree cannot


@pytest.mark.parametrize("given", ["a/b", "./a/b/", "a//./b", "{source}/a/b"])
def test_a_path_goes_below_the_folder_under_its_base_name_however_it_is_written(job: Job, to: Path, given: str) -> None:
    put(job, "a/b/c", b"c")
    back_up(job)

    output(job, "restore", given.format(source=os.fsdecode(job.source)), "--to", to)

    assert sorted(map(str, (file.relative_to(to) for file in to.rglob("*")))) == ["b", "b/c"]


def test_restoring_needs_no_source(job: Job, to: Path) -> None:
    put(job, "a/file", b"content")
    back_up(job)
    shutil.rmtree(job.source)

    output(job, "restore", ".", "--to", to)

    assert (to / "a/file").read_bytes() == b"content"


def test_with_several_jobs_one_is_to_be_named(lb_job: MakeJob, to: Path) -> None:
    one, two = lb_job(name="one"), lb_job(name="two")
    for job in (one, two):
        put(job, "file", job.name.encode())
        back_up(job)
    config = configuration(one, two)

    refused = call(config, "restore", "file", "--to", to)
    assert (refused.exit_code, to.exists()) == (2, False)
    assert "say which job is meant: one, two" in refused.stderr
    assert call(config, "restore", "--job", "two", "file", "--to", to).exit_code == 0
    assert (to / "file").read_bytes() == b"two"


def interrupted(job: Job, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends, as by a crash, when it is about to mark what ``stage`` did to the mirror."""

    class Crash(BaseException):
        pass

    def crash(work: object, steps: list[object]) -> None:
        if steps:
            raise Crash

    module, name = {"lift": (lift, "_mark"), "place": (place, "_mark"), "content": (arriving, "mark_placed")}[stage]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, crash)
        with pytest.raises(Crash):
            job.run()


@pytest.mark.parametrize("stage", ["lift", "place", "content"])
def test_every_point_in_time_comes_out_while_a_run_is_cut_short(
    job: Job, to: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(job, "moved/below/file", b"moves with its directory")
    put(job, "moved/changed", b"first")
    put(job, "renamed", b"renamed only")
    put(job, "one", b"one")
    put(job, "two", b"two")
    put(job, "gone", b"gone")
    put(job, "edited", b"first")
    os.link(at(job, "edited"), at(job, "edited-too"))
    first = back_up(job)
    before = read_tree(job.source)
    os.mkdir(at(job, "new"))
    os.rename(at(job, "moved"), at(job, "new/place"))
    os.rename(at(job, "new/place/below"), at(job, "new/up"))
    put(job, "new/place/changed", b"second")
    os.rename(at(job, "renamed"), at(job, "new/name"))
    os.rename(at(job, "one"), at(job, "passing"))
    os.rename(at(job, "two"), at(job, "one"))
    os.rename(at(job, "passing"), at(job, "two"))
    os.unlink(at(job, "gone"))
    put(job, "edited", b"second")
    interrupted(job, stage, monkeypatch)

    output(job, "restore", "--at", str(first), ".", "--to", to)

    assert compare_trees(before, to) == []
    assert lb(job, "restore", "--at", "2", ".", "--to", to / "no").exit_code == 2
    back_up(job)
    output(job, "restore", "--at", str(first), ".", "--to", to / "again")
    assert compare_trees(before, to / "again") == []


def test_restoring_goes_on_while_runs_go_on(job: Job, to: Path) -> None:
    """Files move between mirror, stage and versions all the time; every restore still gets its point in time."""
    for number in range(30):
        put(job, f"d/{number}", b"first %d" % number)
    first = back_up(job)
    before = read_tree(job.source)
    stop = threading.Event()
    failures: list[object] = []

    def run_on() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            os.rename(at(job, "d" if turn % 2 else "e"), at(job, "e" if turn % 2 else "d"))
            for number in range(30):
                put(job, f"{'e' if turn % 2 else 'd'}/{number}", b"turn %d of %d" % (turn, number))
            outcome = job.run()
            if outcome.exit_code:
                failures.append(outcome)

    runner = threading.Thread(target=run_on)
    runner.start()
    try:
        until = time.monotonic() + 3
        rounds = 0
        while time.monotonic() < until:
            rounds += 1
            output(job, "restore", "--at", str(first), ".", "--to", to / str(rounds))
            assert compare_trees(before, to / str(rounds)) == []
    finally:
        stop.set()
        runner.join()
    assert failures == []
    assert rounds > 2


def test_a_time_means_the_point_in_time_of_then(job: Job, to: Path) -> None:
    put(job, "file", b"first")
    back_up(job)
    with job.catalog() as catalog:
        run = catalog.runs.last_committed()
    assert run is not None and run.view_to_ns is not None
    when = local_time(run.view_to_ns)
    while local_time(time.time_ns()) == when:
        time.sleep(0.05)
    put(job, "file", b"second")
    back_up(job)

    output(job, "restore", "--at", when, ".", "--to", to)

    assert (to / "file").read_bytes() == b"first"
