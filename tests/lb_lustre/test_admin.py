"""What an administrator does with a simulated Lustre: register, see what waits, check. Jobs that ask the servers."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lb_lustre import feed, fid
from lb_lustre.checking import check_feed
from lb_lustre.device import DeviceFeed
from lb_lustre.options import ChangelogOptions
from lb_lustre.server import NEEDED
from lbcore.alone import collect_alone
from lbcore.model import HintFlag
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_simulated import SETUP, backed_up, settle, shell
from tests.support.commands import call

MakeJob = Callable[..., Job]
HEADS = [
    "JOB", "SERVER", "USER", "MASK", "FIRST", "LAST", "CLEARED", "WAITING", "SIZE", "OLDEST", "IDLE", "DROPPED-IN"
]  # fmt: skip


@pytest.fixture
def job(lustre: Simulated, make_job: MakeJob) -> Job:
    """A job that may ask the servers and is not registered yet; named ``job``."""
    return make_job(ask=True)


@pytest.fixture
def settings(lustre: Simulated) -> dict[str, Any]:
    """Of the detector, for a job that asks the servers."""
    return {"filesystem": "simfs", "devices": str(lustre.devices), "servers": [shlex.join(lustre.lctl)]}


def users(lustre: Simulated, mdt: int = 0) -> list[str]:
    return list(lustre.ask("users", mdt=mdt)["users"])


def lctl(lustre: Simulated, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*lustre.lctl, *arguments], capture_output=True, text=True, check=False)


def said(job: Job, *arguments: str, status: int = 0) -> list[str]:
    result = job.command("lustre", *arguments)
    assert result.exit_code == status, result.output
    return result.stdout.splitlines()


def gap_of(job: Job, run: int) -> str:
    with job.catalog() as catalog:
        found = catalog.runs.get(run)
        assert found is not None and found.gap is not None
        return found.gap


# ── lctl ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_stand_in_prints_and_ends_as_a_real_lctl(lustre: Simulated) -> None:
    """Recordings j_cli.txt, but for the name of the filesystem."""
    device = ("--device", "simfs-MDT0000")
    for arguments, output, error, status in (
        (("changelog_register",), "simfs-MDT0000: Registered changelog userid 'cl1'\n", "", 0),
        (("changelog_register", "-n"), "cl2\n", "", 0),
        (("changelog_register", "-u", "bakup"), "simfs-MDT0000: Registered changelog userid 'cl3-bakup'\n", "", 0),
        (("changelog_register", "-u", "bakup"), "", "error: changelog_register: User exists\n", 17),
        (("changelog_register", "-u", "bad name!"), "", "error: changelog_register: Invalid argument\n", 22),
        (("changelog_register", "-u", "averyveryverylongusernameindeed"), "",
         "error: changelog_register: File name too long\n", 36),
        (("changelog_register", "-m", "BOGUS"), "", "error: changelog_register: Invalid argument\n", 22),
        (("changelog_register", "-u", "masked", "-m", "creat,MKDIR"),
         "simfs-MDT0000: Registered changelog userid 'cl4-masked'\n", "", 0),
        (("changelog_deregister", "cl99"), "", "error: changelog_deregister: User not found\n", 2),
        (("changelog_deregister", "cl2"), "simfs-MDT0000: Deregistered changelog user #2\n", "", 0),
        (("changelog_deregister", "-u", "bakup"), "simfs-MDT0000: Deregistered changelog user #3\n", "", 0),
    ):  # fmt: skip
        done = lctl(lustre, *device, *arguments)
        assert (done.stdout, done.stderr, done.returncode) == (output, error, status), arguments
    done = lctl(lustre, "get_param", "mdd.*.changelog_users")
    assert re.sub(r" \(\d+\)", " (0)", done.stdout).splitlines() == [
        "mdd.simfs-MDT0000.changelog_users=",
        "current_index: 0",
        "ID                            index (idle) mask",
        "cl1                               0 (0)",
        "cl4-masked                        0 (0) mask=MARK,CREAT,MKDIR",
        "mdd.simfs-MDT0001.changelog_users=",
        "current_index: 0",
        "ID                            index (idle) mask",
    ]
    failing: tuple[tuple[tuple[str, ...], int], ...] = (
        (("--device", "nofs-MDT0000", "changelog_register"), 1),
        (("changelog_register",), 4),
        (("changelog_deregister", "cl1"), 4),
        (("--device", "simfs-OST0000", "changelog_register"), 25),
        ((*device, "changelog_deregister"), 4),
        ((*device, "changelog_deregister", "bogus"), 4),
        (("get_param", "mdd.*.changelog_names"), 2),
    )
    for words, code in failing:
        assert lctl(lustre, *words).returncode == code, words


# ── lb lustre ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_registering_once_more_does_nothing(lustre: Simulated, job: Job) -> None:
    assert said(job, "register", "job") == [f"job: MDT000{mdt}: registered as cl1-lb-job" for mdt in (0, 1)]
    assert said(job, "register", "job") == [f"job: MDT000{mdt}: is registered already, as cl1-lb-job" for mdt in (0, 1)]
    assert set(lustre.ask("users", mdt=0)["users"]["cl1-lb-job"]["mask"]) == set(NEEDED)


def test_a_name_that_is_taken_for_something_else_is_refused(lustre: Simulated, job: Job) -> None:
    lustre.ask("register", mdt=0, name="lb-job", mask=["CREAT", "UNLNK"])
    result = job.command("lustre", "register", "job")
    assert (result.exit_code, result.stdout) == (1, "job: MDT0001: registered as cl1-lb-job\n")
    assert "MDT0000: 'lb-job' is taken: cl1-lb-job does not get MKDIR, HLINK" in result.stderr
    assert "give the job another name in 'changelog.user'" in result.stderr


def test_two_jobs_never_share_a_name(lustre: Simulated, job: Job, tmp_path: Path) -> None:
    options = (
        f'filesystem = "simfs"\ndevices = "{lustre.devices}"\nservers = ["{shlex.join(lustre.lctl)}"]\nuser = "lb"\n'
    )
    config = tmp_path / "lb.toml"
    sections = [
        f'[job.{name}]\nsource = "{lustre.root}"\ntarget = "{tmp_path}/{name}"\ndetector = "changelog"\n'
        f"[job.{name}.changelog]\n{options}"
        for name in ("one", "two")
    ]
    config.write_text("\n".join(sections))
    for command in (["register"], ["deregister", "--yes"]):
        result = job.command("lustre", *command, "job")
        assert result.exit_code == 0, result.output
    for word in ("register", "deregister"):
        result = call(str(config), "lustre", word, "one")
        assert result.exit_code == 2
        assert "job 'two' is registered as 'lb' too; set 'changelog.user' of one of them" in result.stderr
    assert users(lustre) == []


def test_deregistering_asks_first(lustre: Simulated, job: Job) -> None:
    said(job, "register", "job")
    for typed in ("", "n\n"):
        assert job.command("lustre", "deregister", "job", typed=typed).exit_code == 1
        assert users(lustre) == ["cl1-lb-job"]
    assert "MDT0001: deregistered cl1-lb-job" in job.command("lustre", "deregister", "job", typed="y\n").stdout
    said(job, "register", "job")
    assert said(job, "deregister", "--yes", "job") == [f"job: MDT000{mdt}: deregistered cl2-lb-job" for mdt in (0, 1)]
    assert said(job, "deregister", "--yes", "job") == [
        f"job: MDT000{mdt}: 'lb-job' is not registered" for mdt in (0, 1)
    ]
    assert users(lustre) == users(lustre, 1) == []


def test_status_tells_what_waits_and_for_how_long(lustre: Simulated, job: Job) -> None:
    lines = said(job, "status")
    assert lines[0].split() == HEADS
    assert "not registered" in lines[1]
    assert lines[3] == "job: MDT0000 records nothing for it: 'lb lustre register job', or the next run does it"
    said(job, "register", "job")
    shell(lustre.root, SETUP)
    lustre.ask("damage", mdt=0, what="forget", seconds=86_400)
    (entry,) = json.loads(job.command("lustre", "status", "job", "--json").stdout)
    first, second = entry["servers"]
    last = lustre.last()
    assert (entry["job"], first["mdt"], first["user"], first["lacking"]) == ("job", "MDT0000", "cl1-lb-job", [])
    assert (first["first"], first["last"], first["cleared"], first["waiting"]) == (1, last[0], 0, last[0])
    assert first["size_bytes"] > 16528
    assert 0 <= first["oldest_seconds"] < 600
    assert 86_400 <= first["idle_seconds"] < 90_000
    assert 29 * 24 - 1 < first["hours_left"] <= 29 * 24
    assert second["hours_left"] > 29 * 24
    lines = said(job, "status")
    assert [line.split()[2:4] for line in lines[1:]] == [["cl1-lb-job", "complete"]] * 2


def test_a_job_that_follows_no_changelog_is_not_registered(make_job: MakeJob) -> None:
    job = make_job(detector="scan", users=())
    result = job.command("lustre", "register", "job")
    assert (result.exit_code, "its detector is 'scan'" in result.stderr) == (2, True)
    assert job.command("lustre", "status").stdout == ""


def test_a_server_that_cannot_be_asked_does_not_hold_up_the_others(lustre: Simulated, job: Job) -> None:
    options = {"filesystem": "simfs", "devices": str(lustre.devices)}
    job.configure(changelog={**options, "servers": ["MDT0000=/no/such lctl", shlex.join(lustre.lctl)]})
    for command in (["register"], ["status"], ["deregister", "--yes"]):
        result = job.command("lustre", *command, "job")
        assert (result.exit_code, "MDT0000: '/no/such' cannot be run" in result.stderr) == (1, True)
        assert "MDT0001" in result.stdout
    job.configure(changelog={**options, "filesystem": "other", "reader": "device"})
    result = job.command("lustre", "status")
    assert (result.exit_code, "is the filesystem 'other' mounted" in result.stderr) == (1, True)


# ── Jobs that ask the servers ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_without_users_in_its_configuration_clears_what_it_read(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    said(job, "register", "job")
    shell(lustre.root, SETUP)
    backed_up(job)
    shell(lustre.root, "echo more >> a/one; mkdir new")
    outcome = backed_up(job)
    assert outcome.counts["files_copied"] == 1
    upto = lustre.last()
    backed_up(job)
    backed_up(job)
    assert all(cleared >= index for cleared, index in zip(lustre.cleared(), upto, strict=True))


def test_a_job_that_is_not_registered_is_before_its_first_scan(lustre: Simulated, job: Job) -> None:
    shell(lustre.root, SETUP)
    backed_up(job)
    assert users(lustre) == users(lustre, 1) == ["cl1-lb-job"]
    shell(lustre.root, "echo more >> a/one; mkdir new")
    outcome = backed_up(job)
    assert outcome.counts["files_copied"] == 1


def test_a_job_that_scanned_so_far_and_is_registered_only_now_scans_once_more(
    lustre: Simulated, make_job: MakeJob, settings: dict[str, Any]
) -> None:
    job = make_job(detector="scan", users=())
    shell(lustre.root, SETUP)
    backed_up(job)
    shell(lustre.root, "echo unseen > unseen")
    job.configure(detector="changelog", changelog=settings)
    outcome = backed_up(job, status=5)
    assert "MDT0000: 'lb-job' was not registered; it is now, as cl1-lb-job" in gap_of(job, outcome.run)
    shell(lustre.root, "echo seen > seen")
    backed_up(job)


@pytest.mark.parametrize(
    ("what", "alone"),
    [("gone", True), ("another", False), ("cleared", False), ("restarted", True), ("masked", False), ("reset", False)],
)
def test_a_registration_that_is_not_what_it_was_is_mended_before_the_scan(
    lustre: Simulated, job: Job, what: str, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    monkeypatch.setattr(feed, "_HOLE_SECONDS", 0)
    shell(lustre.root, SETUP)
    for _ in range(3):
        shell(lustre.root, "date +%N >> a/one; mkdir -p x$(date +%N)")
        backed_up(job)
    if what == "restarted":
        lustre.ask("register", mdt=0, name="somebody", mask=["CREAT"])
        lustre.ask("damage", mdt=0, what="restart")
    elif what == "masked":
        lustre.ask("deregister", mdt=0, user="cl1-lb-job")
        lustre.ask("register", mdt=0, name="lb-job", mask=["CREAT"])
    elif what == "reset":
        lustre.ask("damage", mdt=0, what="reset")
    elif what in ("gone", "another"):
        lustre.ask("deregister", mdt=0, user="cl1-lb-job")
    shell(lustre.root, "lost=$(date +%N); echo unseen > unseen; chmod 600 a/one; mkdir -p z; rm a/sparse")
    if what == "another":
        lustre.ask("register", mdt=0, name="lb-job", mask=list(NEEDED))
    elif what == "cleared":
        shell(lustre.devices, f"printf clear:cl1-lb-job:{lustre.last()[0]} > changelog-simfs-MDT0000")
    if alone:
        found = collect_alone(job.config)
        assert found is not None and found.gap is not None
    outcome = backed_up(job, status=5)
    expected = {
        "gone": "'lb-job' was not registered; it is now, as cl2-lb-job",
        "another": "cl1-lb-job is not registered any more; cl2-lb-job is",
        "cleared": "somebody else cleared up to",
        "restarted": "MKDIR, HLINK",
        "masked": "it is registered anew, as cl3-lb-job",
        "reset": "'lb-job' was not registered; it is now, as cl1-lb-job",
    }
    assert expected[what] in gap_of(job, outcome.run)
    assert "MDT0001" not in gap_of(job, outcome.run)
    assert f"the feed has a gap, so this run scans: {gap_of(job, outcome.run)}" in job.log(outcome.run)
    shell(lustre.root, "echo seen > seen; rm unseen; mv a b")
    backed_up(job)
    backed_up(job)


def test_what_the_servers_list_as_open_is_compared_though_no_record_tells(lustre: Simulated, job: Job) -> None:
    """It was opened before the job was registered: nothing was recorded of that, and nothing is before it is closed."""
    shell(lustre.root, SETUP)
    with open(lustre.root / "a/log", "wb", buffering=0) as log:
        backed_up(job)
        opened = fid.parse(lustre.ask("fid_of", path="a/log"))
        for line in (b"one\n", b"two\n"):
            log.write(line)
            backed_up(job)
            with job.catalog() as catalog:
                assert catalog.hints.flags(opened) & HintFlag.OPEN
    backed_up(job)
    with job.catalog() as catalog:
        assert not catalog.hints.flags(opened) & HintFlag.OPEN


def test_files_that_are_open_for_long_are_reported(
    lustre: Simulated, make_job: MakeJob, settings: dict[str, Any]
) -> None:
    job = make_job(ask=True)
    job.configure(changelog={**settings, "max_open": 0.000_000_1})
    shell(lustre.root, SETUP)
    with open(lustre.root / "a/log", "wb"):
        first, second = backed_up(job), backed_up(job)
        lines = job.command("collect").stdout
        written = lustre.ask("fid_of", path="a/log")
        assert lines.startswith("job: ") and "; 1 files are open; open for more than 1e-07 hours: " in lines
        assert f"{written} (0 h)" in lines
    assert "1 files are open\n" in job.log(first.run) and "open for more than" not in job.log(first.run)
    assert f"open for more than 1e-07 hours: {written} (0 h)" in job.log(second.run)
    (entry,) = json.loads(job.command("collect", "--json").stdout)["jobs"]
    assert entry["notes"] == []


def test_collecting_alone_clears_and_the_run_misses_nothing(
    lustre: Simulated, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    shell(lustre.root, SETUP)
    backed_up(job)
    for number in range(4):
        shell(
            lustre.root,
            f"echo {number} >> a/one; mkdir d{number}; mv a/b a/b{number}; mv a/b{number} a/b; touch p; rm p",
        )
        upto = lustre.last()
        assert collect_alone(job.config) is not None
        assert all(cleared <= index for cleared, index in zip(lustre.cleared(), upto, strict=True))
    assert max(lustre.cleared()) > 0
    backed_up(job)


# ── lb check ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def findings(job: Job) -> tuple[int, list[dict[str, Any]]]:
    result = job.command("check", "--json")
    (entry,) = json.loads(result.stdout)["jobs"]
    assert result.exit_code == entry["exit_code"]
    return result.exit_code, [one for one in entry["findings"] if one["fatal"]]


def test_check_says_what_is_wrong_with_changelogs_and_what_to_do(lustre: Simulated, job: Job, tmp_path: Path) -> None:
    code, found = findings(job)
    assert (code, len(found)) == (1, 2)
    assert found[0]["what"] == "MDT0000: this job is not registered: nothing is recorded for it"
    assert found[0]["advice"] == "'lb lustre register job'; the next run scans"
    said(job, "register", "job")
    assert findings(job) == (0, [])
    lustre.ask("damage", mdt=1, what="forget", seconds=28 * 86_400)
    _, (near,) = findings(job)
    assert near["what"].startswith("MDT0001: it drops cl1-lb-job in 48 hours; ")
    said(job, "deregister", "--yes", "job")
    for mdt in (0, 1):
        lustre.ask("register", mdt=mdt, name="lb-job", mask=[kind for kind in NEEDED if kind != "SATTR"])
    _, (lacking, _) = findings(job)
    assert lacking["what"] == "MDT0000: SATTR is not recorded for cl2-lb-job"
    options = {"filesystem": "simfs", "devices": str(lustre.devices)}
    job.configure(changelog=options)
    _, (nobody, _) = findings(job)
    assert "neither a server nor a user is configured" in nobody["what"]
    job.configure(changelog={**options, "users": ["MDT0000=cl1", "MDT0001=cl1"]})
    assert findings(job) == (0, [])
    job.configure(changelog={**options, "servers": ["/no/such lctl"]})
    _, (first, _) = findings(job)
    assert "'/no/such' cannot be run" in first["what"]
    job.configure(changelog={**options, "filesystem": "other", "reader": "device"})
    _, (first,) = findings(job)
    assert "is the filesystem 'other' mounted" in first["what"]


def test_a_changelog_that_cannot_be_read_here_is_found(lustre: Simulated, tmp_path: Path) -> None:
    there = DeviceFeed(str(tmp_path / "changelog-simfs-MDT0000"), "MDT0000")
    _, finding = check_feed(there, ChangelogOptions(), "simfs", "job", time.time_ns())
    assert "cannot be opened: No such file or directory; is the filesystem mounted" in finding.what
