"""``lb collect``: the feed is read and forgotten beside a run, and nothing that it told is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore import _posix
from lbcore import collecting as collecting_module
from lbcore.alone import collect_alone
from lbcore.catalog import database
from lbcore.catalog.catalog import Catalog
from lbcore.collecting import Collected, collecting
from lbcore.config.toml import toml_value
from lbcore.errors import CatalogError, LockedError, SourceError, TargetError
from lbcore.model import HintFlag, ObjectId
from lbcore.progress import Progress
from lbcore.run import JobRun, Options, catalog_path
from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from tests.support.attempts import LB
from tests.support.commands import json_of, lb
from tests.support.journal import Journal
from tests.support.running import backed_up

ROOT = Path(__file__).parents[2]
FAULT_POINTS = ROOT / "tests" / "support" / "fault_points.py"
SECOND = 10**9


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "journal"))


@pytest.fixture
def job(journal: Journal, lb_job: MakeJob) -> Job:
    """A job with a backup, and a feed that tells only what a test says."""
    job = lb_job(journal, detector="journal", transfer=["doing"], racy_seconds=0)
    for name in (b"one", b"two", b"three"):
        write(job, name, b"first")
    backed_up(job)
    return job


def write(job: Job, name: bytes, content: bytes) -> None:
    with open(os.path.join(job.source, name), "wb") as file:
        file.write(content)


def id_of(job: Job, name: bytes = b"") -> ObjectId:
    top = os.open(job.source, os.O_RDONLY)
    try:
        object_id: ObjectId = _posix.look(top, name)[0]
        return object_id
    finally:
        os.close(top)


def change(job: Job, journal: Journal, name: bytes, content: bytes) -> None:
    write(job, name, content)
    journal.add(id_of(job, name))


def collected(job: Job) -> Collected:
    found = collect_alone(job.config)
    assert found is not None
    return found


def hinted(job: Job, name: bytes) -> HintFlag:
    with job.catalog() as catalog:
        return catalog.hints.flags(id_of(job, name))


def test_what_is_collected_is_forgotten_by_the_feed_and_looked_at_by_the_next_run(job: Job, journal: Journal) -> None:
    for number, name in enumerate((b"one", b"two")):
        change(job, journal, name, b"second")
        found = collected(job)
        assert (found.hints, found.gap) == (1, None)
        assert journal.records() == []
        with job.catalog() as catalog:
            assert catalog.hints.count() == number + 1
    outcome = backed_up(job)
    assert outcome.counts["files_copied"] == 2
    with job.catalog() as catalog:
        assert catalog.hints.count() == 0


def test_what_is_collected_while_a_run_is_at_work_outlives_it(job: Job, journal: Journal) -> None:
    def meanwhile() -> None:
        change(job, journal, b"two", b"second, too late for the run")
        assert collected(job).hints == 1

    change(job, journal, b"one", b"second")
    journal.during = meanwhile
    assert job.run().exit_code == 0
    assert hinted(job, b"two")
    assert not hinted(job, b"one")
    backed_up(job)


def test_an_object_that_the_run_looks_at_and_that_changes_meanwhile_is_looked_at_again(
    job: Job, journal: Journal
) -> None:
    def meanwhile() -> None:
        journal.add(id_of(job, b"one"), HintFlag.ATTRIBUTES)
        collected(job)
        journal.tell(0)

    change(job, journal, b"one", b"second")
    journal.during = meanwhile
    assert job.run().exit_code == 0
    assert hinted(job, b"one") & HintFlag.ATTRIBUTES


def test_the_second_collection_of_a_run_leaves_alone_what_came_between(
    journal: Journal, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hint that ``lb collect`` took after the run's first collection keeps its number when the run meets it again."""
    change(job, journal, b"one", b"second")
    with contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog, catalog.database.transaction():
        collection = catalog.meta.get("collection")
        assert catalog.hints.count() == 0
    collected(job)
    with contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog, catalog.database.transaction():
        before = list(catalog.hints.all())
        catalog.hints.add(before, collection, 1)
        catalog.hints.keep(before[0].id, HintFlag.NAMES, collection + 1)
        catalog.hints.drop_used(collection + 1, racy_from_ns=1 << 62, open_from_ns=1 << 62)
        assert [one.id for one in catalog.hints.all()] == [one.id for one in before]


def test_what_is_racy_is_judged_by_the_runs_own_clock(job: Job, journal: Journal) -> None:
    job.configure(racy_seconds=10.0)

    def meanwhile() -> None:
        journal.tell(1000 * SECOND)
        collected(job)

    write(job, b"one", b"second")
    journal.add(id_of(job, b"one"), time_ns=100 * SECOND)
    journal.tell(101 * SECOND)
    journal.during = meanwhile
    assert job.run().exit_code == 0
    assert hinted(job, b"one") & HintFlag.DATA, "written 1 s before the run's cut"


def test_a_gap_is_durable_and_the_next_run_scans_once(job: Job, journal: Journal) -> None:
    write(job, b"one", b"second, and no record tells")
    journal.lose("somebody cleared it")
    assert collected(job).gap == "somebody cleared it"
    assert journal.records() == []
    assert collected(job).gap is None
    outcome = job.run()
    assert (outcome.exit_code, job.differences()) == (5, [])
    backed_up(job)


def test_a_gap_that_is_found_while_a_run_scans_makes_the_next_one_scan(job: Job, journal: Journal) -> None:
    def meanwhile() -> None:
        write(job, b"three", b"third, and no record tells")
        journal.lose("the second gap")
        collected(job)

    write(job, b"one", b"second, and no record tells")
    journal.lose("the first gap")
    journal.during = meanwhile
    assert job.run().exit_code == 5
    outcome = job.run()
    assert (outcome.exit_code, job.differences()) == (5, [])
    with job.catalog() as catalog:
        run = catalog.runs.get(outcome.run)
        assert run is not None and run.gap == "the second gap"
    backed_up(job)


def test_what_passed_by_is_dropped_but_not_what_a_run_may_have_seen(job: Job, journal: Journal) -> None:
    """Made before the run looked, removed after: the feed calls it passing, and the mirror has it nevertheless."""
    os.mkdir(os.path.join(job.source, b"passing"))
    passing = id_of(job, b"passing")
    journal.add(passing)

    def meanwhile() -> bool:
        with job.catalog() as catalog:
            run = catalog.runs.open()
            planned = run is not None and run.view_to_ns is not None and not catalog.objects.by_id(passing)
        if planned and not journal.records() and os.path.exists(os.path.join(job.source, b"passing")):
            os.rmdir(os.path.join(job.source, b"passing"))
            journal.add(passing, HintFlag.NAMES | HintFlag.PASSING)
            collected(job)
        return False

    JobRun(job.config, job.plugins, Options(), Progress(), meanwhile).run()
    assert os.path.exists(os.path.join(job.tree, b"passing"))
    assert not os.path.exists(os.path.join(job.source, b"passing"))
    backed_up(job)
    journal.add(b"unknown, ever so", HintFlag.NAMES | HintFlag.PASSING)
    collected(job)
    with job.catalog() as catalog:
        assert catalog.hints.count() == 0, "no run is open: it can be nowhere"


def test_what_a_later_collection_says_of_passing_by_holds(job: Job, journal: Journal) -> None:
    with contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog:
        one = id_of(job, b"one")
        journal.add(one, HintFlag.PASSING)
        collected(job)
        assert catalog.hints.flags(one) & HintFlag.PASSING, "the catalog knows it"
        journal.add(one, HintFlag.NAMES)
        collected(job)
        assert catalog.hints.flags(one) == HintFlag.NAMES


def test_two_collections_of_a_job_are_not_made_at_once(job: Job, journal: Journal) -> None:
    change(job, journal, b"one", b"second")
    with collecting(job.target):
        with pytest.raises(LockedError, match=rf"collecting is held by process {os.getpid()} "):
            collect_alone(job.config)
        assert len(journal.records()) == 1
    assert collected(job).hints == 1


def test_a_run_waits_for_a_collection_and_can_be_paused_meanwhile(
    job: Job, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    class EnoughError(Exception):
        pass

    looks: list[None] = []

    def waiting() -> None:
        looks.append(None)
        if len(looks) == 2:
            raise EnoughError

    with caplog.at_level("INFO"), collecting(job.target), pytest.raises(EnoughError), collecting(job.target, waiting):
        pytest.fail("both collect")
    assert caplog.text.count(f"collecting is held by process {os.getpid()} ") == 1
    with collecting(job.target, waiting):
        assert len(looks) == 2


def test_a_collection_that_is_cut_short_is_made_again_from_its_beginning(
    job: Job, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hints become durable in several transactions, so that a run never waits for long; the cursor in the last."""
    monkeypatch.setattr(collecting_module, "_HINTS_TOGETHER", 2)
    for name in (b"one", b"two", b"three"):
        change(job, journal, name, b"second")
    journal.break_after = 2
    with pytest.raises(TargetError, match="Input/output error"):
        collect_alone(job.config)
    assert len(journal.records()) == 3
    with job.catalog() as catalog:
        assert (catalog.hints.count(), catalog.meta.get("cursor")) == (2, b"0")
    journal.break_after = None
    assert collected(job).hints == 3
    assert journal.records() == []
    assert backed_up(job).counts["files_copied"] == 3


def test_a_detector_without_a_feed_has_nothing_to_collect(lb_job: MakeJob) -> None:
    job = lb_job()
    assert collect_alone(job.config) is None
    assert json_of(job, "collect") == {"jobs": [{"job": "job", "state": "no feed", "exit_code": 0}]}
    assert "its detector 'scan' has no feed" in lb(job, "collect").stdout


def test_a_job_that_has_not_run_collects_nothing(journal: Journal, lb_job: MakeJob) -> None:
    job = lb_job(journal, detector="journal", name="new")
    journal.tell(1)
    with pytest.raises(TargetError, match=r"there is no backup yet at .*: 'lb run new' makes it"):
        collect_alone(job.config)
    os.makedirs(job.lb)
    with contextlib.closing(Catalog.open(catalog_path(job.config))):
        pass
    with pytest.raises(TargetError, match="no run of this job has begun yet"):
        collect_alone(job.config)
    assert len(journal.records()) == 1


def test_a_source_or_target_that_is_another_is_refused_before_anything_is_forgotten(
    job: Job, journal: Journal, tmp_path: Path
) -> None:
    change(job, journal, b"one", b"second")
    real = job.source
    os.rename(real, real + b".away")
    with pytest.raises(SourceError, match="cannot be read"):
        collect_alone(job.config)
    os.mkdir(real)
    with pytest.raises(SourceError, match="is not the directory this job has backed up so far"):
        collect_alone(job.config)
    os.rmdir(real)
    os.rename(real + b".away", real)
    epoch = Path(os.fsdecode(job.lb)) / "epoch"
    written = epoch.read_text()
    epoch.write_text("another 1\n")
    with pytest.raises(CatalogError, match="do not belong together"):
        collect_alone(job.config)
    epoch.write_text(written)
    assert len(journal.records()) == 1
    assert collected(job).hints == 1


def test_a_catalog_of_an_older_lb_is_left_to_a_run(job: Job, journal: Journal) -> None:
    change(job, journal, b"one", b"second")
    with contextlib.closing(sqlite3.connect(os.fsdecode(catalog_path(job.config)))) as connection:
        connection.execute("PRAGMA user_version = 0")
    with pytest.raises(CatalogError, match="was written by an older lb"):
        collect_alone(job.config)
    assert len(journal.records()) == 1


def test_a_catalog_that_is_written_to_for_long_is_left_for_later(
    job: Job, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(job, journal, b"one", b"second")
    monkeypatch.setattr(database, "_PATIENCE_SECONDS", 0.05)
    with (
        contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog,
        catalog.database.transaction(),
        pytest.raises(LockedError, match="is written to by a run for long; nothing is lost"),
    ):
        collect_alone(job.config)
    assert len(journal.records()) == 1


# ── The command, and other processes ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def environment(journal: Journal, tmp_path: Path) -> dict[str, str]:
    """In which the detector ``journal`` is installed."""
    metadata = tmp_path / "site" / "lb_test_journal-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lb-test-journal\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[lbcore]\njournal = tests.support.journal\n")
    paths = [str(tmp_path / "site"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LB_TEST_JOURNAL": journal.path}


@pytest.fixture
def configuration(job: Job, tmp_path: Path) -> str:
    path = tmp_path / "lb.toml"
    ends = (f"{key} = {toml_value(os.fsdecode(end))}" for key, end in (("source", job.source), ("target", job.target)))
    path.write_text("\n".join(["[job.job]", *ends, 'detector = "journal"', "racy_seconds = 0"]))
    return str(path)


def run_collect(configuration: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LB, "-c", configuration, "collect", *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_the_command_says_what_it_collected_and_where_the_feed_has_a_gap(
    job: Job, journal: Journal, configuration: str, environment: dict[str, str]
) -> None:
    change(job, journal, b"one", b"second")
    done = run_collect(configuration, environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "job: 1 objects for the next run to look at\n", "")
    journal.lose("it was\nlost")
    done = run_collect(configuration, environment, "--json")
    (entry,) = json.loads(done.stdout)["jobs"]
    assert entry == {"job": "job", "state": "collected", "exit_code": 0, "hints": 0, "gap": "it was\nlost", "notes": []}
    assert done.stderr == "lb: job: the feed has a gap, the next run scans: it was\nlost\n"
    with collecting(job.target):
        done = run_collect(configuration, environment, "--json")
    (entry,) = json.loads(done.stdout)["jobs"]
    assert (done.returncode, entry["state"], entry["exit_code"]) == (11, "failed", 11)
    assert "collecting is held by process" in done.stderr


@contextlib.contextmanager
def stopped_run(configuration: str, environment: dict[str, str], step: int) -> Iterator[subprocess.Popen[bytes]]:
    """``lb run`` in a process of its own, until it has stopped itself at a step, or is done."""
    running = subprocess.Popen(
        [sys.executable, FAULT_POINTS, "-c", configuration, "run"],
        env={**environment, "LB_TEST_FAULT": f"stop:{step}"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        yield running
    finally:
        running.kill()
        running.wait()


@pytest.mark.sweep
def test_a_collection_at_any_step_of_a_run_disturbs_neither(
    job: Job, journal: Journal, configuration: str, environment: dict[str, str]
) -> None:
    done, step, waited = False, 3, 0
    while not done:
        for name in (b"one", b"new-%d" % step):
            change(job, journal, name, b"before %d" % step)
        journal.add(id_of(job))
        with stopped_run(configuration, environment, step) as running:
            done = running.poll() is not None
            change(job, journal, b"two", b"during %d" % step)
            collect = subprocess.Popen(
                [*LB, "-c", configuration, "collect"], env=environment, stderr=subprocess.PIPE, text=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                collect.wait(3)
            except subprocess.TimeoutExpired:
                waited += 1  # the run has stopped in a transaction: it goes on, and then the collection does
            if not done:
                os.kill(running.pid, signal.SIGCONT)
            code, (_, said) = running.wait(120), collect.communicate(timeout=120)
            assert code in (0, 3), step  # 3: it was about to bring the file that changes here
            assert collect.returncode == 0 or (collect.returncode == 11 and "collecting is held" in said), said
        assert run_collect(configuration, environment).returncode == 0
        backed_up(job)
        step += 9
    assert step > 50
    assert waited > 0


def test_who_writes_without_a_pause_does_not_keep_out_another(job: Job) -> None:
    """Transactions one behind the other, as of a run that observes, in another process."""
    busy = subprocess.Popen(
        [sys.executable, "-c", WRITING_ALL_THE_TIME, catalog_path(job.config)], stdout=subprocess.PIPE
    )
    try:
        assert busy.stdout is not None and busy.stdout.readline()
        with contextlib.closing(Catalog.open(catalog_path(job.config))) as catalog:
            for number in range(20):
                before = catalog.meta.get("busy")
                with catalog.database.transaction():
                    catalog.meta.put("ours", number)
                    turns = catalog.meta.get("busy") - before
                assert turns <= 3, "it let us in behind the transaction that it was in"
    finally:
        busy.kill()
        busy.wait()
        assert busy.stdout is not None
        busy.stdout.close()


WRITING_ALL_THE_TIME = """
import os, sys, time
from lbcore.catalog.catalog import Catalog
catalog = Catalog.open(os.fsencode(sys.argv[1]))
number = 0
while True:
    with catalog.database.transaction():
        number += 1
        catalog.meta.put("busy", number)
        time.sleep(0.02)  # it has much to do
    if number == 1:
        print("writing", flush=True)
"""
