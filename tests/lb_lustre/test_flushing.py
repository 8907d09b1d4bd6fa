"""Writers are made to send what they have cached, before a snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb_lustre import fid
from lb_lustre.changelog import Changelog
from lb_lustre.flushing import Flushing
from lb_lustre.options import ChangelogOptions
from lbcore.model import Hint, HintFlag, ObjectId
from lbcore.plugins.types import Source
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_lustreapi import compiled
from tests.lb_lustre.test_simulated import shell

NOTHING = {"flushed": 0, "gone": 0, "failed": 0, "left": 0}
DATA = HintFlag.DATA


def hint(lustre: Simulated, path: str, flags: HintFlag = DATA) -> Hint:
    return Hint(id=fid.parse(lustre.ask("fid_of", path=path)), flags=flags, time_ns=1)


def flushed(lustre: Simulated, hints: list[Hint], seconds: float = 60.0) -> dict[str, int]:
    changelog = Changelog(ChangelogOptions(filesystem="simfs", flush_seconds=seconds))
    return changelog.flush(Source(job="job", path=os.fsencode(lustre.root / "top")), hints)


def test_what_was_written_is_flushed_whatever_else_there_is(lustre: Simulated) -> None:
    shell(lustre.root, "mkdir -p top/d; for i in a b c e; do echo > top/$i; done; ln -s a top/l; mkfifo top/p")
    shell(lustre.root, "mknod top/tty c 5 0; rm -f top/gone; echo > top/gone")
    gone = hint(lustre, "top/gone")
    shell(lustre.root, "rm top/gone")
    hints = [hint(lustre, f"top/{name}") for name in ("a", "b", "d", "l", "p", "tty")]
    hints += [hint(lustre, "top/c", HintFlag.OPEN), hint(lustre, "top/e", HintFlag.ATTRIBUTES), gone]
    recorded = lustre.last()
    assert flushed(lustre, hints) == NOTHING | {"flushed": 3, "gone": 1}
    assert [lustre.ask("flushes", path=f"top/{name}") for name in "abce"] == [1, 1, 1, 0]
    assert lustre.last() == recorded, "nothing changed by it"


def test_a_released_file_is_flushed_without_its_content_being_asked_for(lustre: Simulated) -> None:
    shell(lustre.root, "mkdir top; echo > top/a")
    lustre.ask("set_hsm", path="top/a", states=0x1 | 0x4 | 0x8)
    assert flushed(lustre, [hint(lustre, "top/a")]) == NOTHING | {"flushed": 1}


def test_a_file_that_fails_is_counted_and_named_and_the_others_go_on(
    lustre: Simulated, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shell(lustre.root, "mkdir top top/a top/b; echo > top/a/f; echo > top/b/f")
    both = [hint(lustre, "top/a/f"), hint(lustre, "top/b/f")]
    servers = [one.id[4] for one in both]
    assert servers == [0, 0x40], "each on another server"
    lustre.ask("disconnect", mdt=1, error="EIO")
    assert flushed(lustre, both) == NOTHING | {"flushed": 1, "failed": 1}
    assert fid.text(both[1].id) in caplog.text
    assert "Input/output error" in caplog.text


def test_without_the_library_the_run_goes_on_and_says_so(
    lustre: Simulated, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LB_LUSTREAPI", "nowhere.so")
    shell(lustre.root, "mkdir top; echo > top/a")
    assert flushed(lustre, [hint(lustre, "top/a")]) == NOTHING | {"failed": 1}
    assert "nowhere.so is not on this node" in caplog.text


def test_no_time_is_no_flush_and_a_negative_one_is_refused(lustre: Simulated) -> None:
    shell(lustre.root, "mkdir top; echo > top/a")
    assert flushed(lustre, [hint(lustre, "top/a")] * 3, seconds=0) == NOTHING | {"left": 3}
    assert lustre.ask("flushes", path="top/a") == 0
    with pytest.raises(ValueError, match="flush_seconds must not be negative"):
        ChangelogOptions(flush_seconds=-1)


WAITING = """
#include <unistd.h>
int llapi_get_data_version(int fd, unsigned long long *v, unsigned long long f)
{ while (access("GO", F_OK)) usleep(1000); return 0; }
"""


@pytest.mark.parametrize("answers", [True, False])
def test_when_the_time_is_up_the_rest_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
    """By a clock that goes on by 1000 seconds whenever it is read; and with servers that answer, or do not."""
    (tmp_path / ".lustre/fid").mkdir(parents=True)
    ids = [fid.pack(0x200000401, number, 0) for number in range(1, 301)]
    for one in ids:
        (tmp_path / ".lustre/fid" / fid.text(one)).touch()
    go = tmp_path / "go"
    monkeypatch.setenv("LB_LUSTREAPI", compiled(tmp_path, WAITING.replace("GO", str(go))))
    if answers:
        go.touch()
    seconds = iter(range(0, 100_000, 1000))
    taken: list[ObjectId] = []

    def asked() -> Iterator[ObjectId]:
        for one in ids:
            taken.append(one)
            yield one

    flushing = Flushing(os.fsencode(tmp_path))
    try:
        counts = flushing.flush(
            asked(), threads=2, seconds=2500 if answers else 1500, clock=lambda: float(next(seconds))
        )
    finally:
        go.touch()
    flushed = 128 if answers else 0
    assert counts == NOTHING | {"flushed": flushed, "left": 300 - flushed}
    assert taken == ids, "all are counted"
