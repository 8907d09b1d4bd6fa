"""Changelogs by liblustreapi: the same hints, the same care, and no server that is left out."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lb_lustre import feed
from lb_lustre._lustreapi import Library
from lb_lustre._records import Reduction, Stream
from lb_lustre.device import DeviceFeed
from lb_lustre.errors import LustreError, LustreUnavailableError
from lb_lustre.feed import Feed
from lb_lustre.feeds import find_feeds
from lb_lustre.ledger import Entry
from lb_lustre.llapi import LibraryFeed, find_servers
from lb_lustre.record import Type, decode
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.recordings import dumps, needs_recordings, reads
from tests.lb_lustre.test_simulated import CHANGE, SETUP, backed_up, settle, shell

MakeJob = Callable[..., Job]


def hints(one: Feed) -> list[tuple[bytes, int, int]]:
    reduction = Reduction()
    one.read(Entry(cleared=0), reduction, threading.Lock())
    return list(reduction.hints())


def test_the_library_leads_to_the_same_hints_as_the_device(lustre: Simulated) -> None:
    for number in (0, 1):
        lustre.ask("register", mdt=number, mask=[kind.name for kind in Type])
    shell(lustre.root, SETUP + CHANGE)
    shell(lustre.root, "for i in $(seq 300); do echo > a-rather-long-name-for-a-file-$i; mv a-r*-$i $i; done")
    for mdt in ("MDT0000", "MDT0001"):
        by_library = hints(LibraryFeed(Library(), "simfs", mdt))
        assert by_library == hints(DeviceFeed(str(lustre.devices / f"changelog-simfs-{mdt}"), mdt))
        assert by_library


@needs_recordings
def test_what_the_library_and_the_device_of_a_real_lustre_gave_leads_to_the_same_hints() -> None:
    for name in dumps("*.kbin"):
        found = []
        for one in (name, name.replace(".kbin", ".bin")):
            reduction = Reduction()
            stream = Stream()
            for piece in reads(one):
                reduction.feed(piece, stream)
            found.append((list(reduction.hints()), list(reduction.renumbered()), stream.last, stream.records))
        assert found[0] == found[1], name


@pytest.fixture
def by_library(lustre: Simulated, make_job: MakeJob, tmp_path: Path) -> Callable[..., Job]:
    """A job on a node without devices."""
    (tmp_path / "dev").mkdir()

    def make(**options: Any) -> Job:
        users = list(lustre.register())
        job = make_job(users=())
        job.configure(changelog={"filesystem": "simfs", "devices": str(tmp_path / "dev"), "users": users, **options})
        return job

    return make


def test_a_job_without_devices_reads_and_clears_by_the_library(
    lustre: Simulated, by_library: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    job = by_library()
    shell(lustre.root, SETUP)
    backed_up(job)
    shell(lustre.root, CHANGE)
    upto = lustre.last()
    changed = backed_up(job)
    assert changed.counts["objects_new"] + changed.counts["objects_changed"] < 25
    backed_up(job)
    assert lustre.cleared() == upto
    for mdt in (0, 1):
        lustre.ask("damage", mdt=mdt, what="roll_back", count=3)
    shell(lustre.root, "echo 11 >> c/x; mkdir c/y; mv c/y c/z; echo 22 >> a/two")
    backed_up(job)


def test_a_lost_record_and_a_lost_user_are_gaps_by_the_library_too(
    lustre: Simulated, by_library: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    monkeypatch.setattr(feed, "_HOLE_SECONDS", 0)
    job = by_library()
    shell(lustre.root, SETUP)
    for _ in range(3):
        backed_up(job)
    shell(lustre.root, "for i in 1 2 3 4 5 6 7 8; do echo $i > file-$i; done")
    last = lustre.last()[0]
    lustre.ask("damage", mdt=0, what="lose", first=last - 3, last=last - 1)
    backed_up(job, status=5)
    lustre.ask("deregister", mdt=1, user="cl1-lb-job")
    backed_up(job, status=5)


def test_reading_begins_where_it_is_told_to(lustre: Simulated) -> None:
    lustre.ask("register", mdt=0, mask=[kind.name for kind in Type])
    shell(lustre.root, "touch a b c d")
    device = DeviceFeed(str(lustre.devices / "changelog-simfs-MDT0000"), "MDT0000")
    for one in (device, LibraryFeed(Library(), "simfs", "MDT0000")):
        for start in (1, 5):
            with one.reading(start) as read:
                assert next(decode(read())).index == start


def test_a_hole_is_waited_for_whatever_the_records_come_by(lustre: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("lb_lustre.feed.time.sleep", waited.append)
    lustre.ask("register", mdt=0, mask=[kind.name for kind in Type])
    shell(lustre.root, "touch a b c d")
    lustre.ask("damage", mdt=0, what="lose", first=2, last=3)
    device = DeviceFeed(str(lustre.devices / "changelog-simfs-MDT0000"), "MDT0000")
    for one in (device, LibraryFeed(Library(), "simfs", "MDT0000")):
        stream = one.read(Entry(cleared=0), Reduction(), threading.Lock())
        assert stream.holes == [(2, 3)]
    assert waited == [6.0, 6.0]


def test_the_library_says_which_server_cannot_be_read_and_why(lustre: Simulated) -> None:
    one = LibraryFeed(Library(), "simfs", "MDT0007")
    with pytest.raises(LustreError, match=r"MDT0007 \(simfs-MDT0007 by .*\) cannot be opened: No such file .* mounted"):
        hints(one)
    with pytest.raises(ValueError, match="would clear everything"):
        one.clear("cl1", 0)
    one = LibraryFeed(Library(), "simfs", "MDT0000")
    lustre.ask("register", mdt=0)
    for user, index, code in (("cl9", 1, errno.ENOENT), ("cl1", 5, errno.EINVAL)):
        with pytest.raises(OSError, match="llapi_changelog_clear") as caught:
            one.clear(user, index)
        assert caught.value.errno == code


# ── Which servers there are, and what reads them ──────────────────────────────────────────────────────────────────────


def test_devices_are_preferred_and_the_library_is_next(lustre: Simulated, tmp_path: Path) -> None:
    path, devices, none = os.fsencode(lustre.root), str(lustre.devices), str(tmp_path / "none")

    def found(folder: str, reader: str) -> list[tuple[type, str]]:
        return [(type(one), one.mdt) for one in find_feeds("simfs", path, devices=folder, reader=reader)]

    assert found(devices, "auto") == found(devices, "device") == [(DeviceFeed, "MDT0000"), (DeviceFeed, "MDT0001")]
    assert found(none, "auto") == found(devices, "library") == [(LibraryFeed, "MDT0000"), (LibraryFeed, "MDT0001")]
    with pytest.raises(LustreError, match="none cannot be listed"):
        found(none, "device")


def test_without_devices_and_library_the_error_names_both(lustre: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LB_LUSTREAPI", "nowhere.so")
    path = os.fsencode(lustre.root)
    with pytest.raises(LustreUnavailableError, match=r"/none has no changelog-simfs-MDT\*.*nowhere\.so is not on this"):
        find_feeds("simfs", path, devices="/none", reader="auto")
    with pytest.raises(LustreUnavailableError, match=r"^nowhere\.so is not on this node"):
        find_feeds("simfs", path, devices=str(lustre.devices), reader="library")


RECORDED = "MDTS:\n0: labfs-MDT0000_UUID ACTIVE\n1: labfs-MDT0001_UUID ACTIVE\n"
"""As ``lfs mdts /mnt/labfs`` of Lustre 2.17 said."""


def lfs(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "lfs").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "lfs").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_all_servers_are_found_those_that_are_not_connected_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "said").write_text(RECORDED + "10: labfs-MDT000a_UUID INACTIVE\n")
    lfs(tmp_path, monkeypatch, f'[ "$*" = "mdts /mnt/labfs" ] && cat {tmp_path}/said')
    assert find_servers("labfs", b"/mnt/labfs") == ["MDT0000", "MDT0001", "MDT000a"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'no such thing' >&2; exit 2", "no such thing"),
        ("exit 0", "it says nothing"),
        ("echo MDTS:", "MDTS:"),
        ("printf 'MDTS:\\n0: other-MDT0000_UUID ACTIVE\\n'", "other-MDT0000"),
        ("printf 'MDTS:\\n0: labfs-MDT0000_UUID ACTIVE\\n1: labfs-MDT0001_UUID\\n'", "labfs-MDT0001"),
        ("printf 'MDTS:\\n0: labfs-MDT0000_UUID ACTIVE\\n'; exit 1", "labfs-MDT0000"),
    ],
)
def test_a_list_of_servers_that_is_not_understood_is_an_error_and_not_a_shorter_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    lfs(tmp_path, monkeypatch, script)
    with pytest.raises(LustreError, match=f"does not list the metadata servers of 'labfs': [^$]*{why}"):
        find_servers("labfs", b"/mnt/labfs")


def test_where_there_is_no_lfs_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LustreUnavailableError, match="lfs is not on this node: install"):
        find_servers("labfs", b"/mnt/labfs")


def test_a_shell_is_told_where_the_stand_ins_are(lustre: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LB_LUSTREAPI")
    monkeypatch.delenv("LB_SIMULATED_LUSTRE")
    command = f'eval "$({sys.executable} -m lb_lustre.simulator.standins {lustre.folder})"; lfs mdts {lustre.root}'
    said = subprocess.run(["bash", "-ec", command + '; test -f "$LB_LUSTREAPI"'], stdout=subprocess.PIPE, check=True)
    assert said.stdout == b"MDTS:\n0: simfs-MDT0000_UUID ACTIVE\n1: simfs-MDT0001_UUID ACTIVE\n"
