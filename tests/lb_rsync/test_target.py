"""What a target can do to a transfer: full, read-only, not ours. The run stops, and says what and where."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from lbcore.errors import TargetError

if TYPE_CHECKING:
    from tests.lb_rsync.conftest import Place


@pytest.fixture(params=["size=1m", "size=1m,nr_inodes=3"], ids=["few bytes", "few inodes"])
def small_disk(request: pytest.FixtureRequest, place: Place) -> Iterator[Place]:
    """``place`` with its folder on a filesystem that is soon full."""
    command = ["mount", "-t", "tmpfs", "-o", request.param, "lb-test", os.fsdecode(place.folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs root, to mount a small filesystem: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        # Lazily: the processes of an rsync that was killed are there for a moment longer.
        subprocess.run(["umount", "--lazy", os.fsdecode(place.folder)], check=True)


@pytest.mark.root
def test_a_full_disk_stops_the_run_and_says_where(small_disk: Place) -> None:
    place = small_disk
    names = [b"d/%d" % number for number in range(5)]
    for name in names:
        place.write(name, os.urandom(500_000))
    with pytest.raises(TargetError, match=r"folder: .*No space left on device") as caught:
        place.deliver(*names)
    assert os.fsdecode(place.folder) in str(caught.value)


@pytest.mark.root
def test_a_target_that_became_read_only_stops_the_run(small_disk: Place) -> None:
    place = small_disk
    place.write(b"f", b"x")
    subprocess.run(["mount", "-o", "remount,ro", os.fsdecode(place.folder)], check=True)
    with pytest.raises(TargetError, match="Read-only file system"):
        place.deliver(b"f")


def test_a_failing_write_stops_the_run(place: Place) -> None:
    """As any disk error does."""
    place.write(b"f", b"x")
    folder = os.fsdecode(place.folder)
    message = f'rsync: [receiver] write failed on "{folder}/f": Input/output error (5)'
    program = place.program("failing", "cat >/dev/null", f"echo '{message}' >&2", "exit 11")
    with pytest.raises(TargetError, match="Input/output error"):
        place.deliver(b"f", program=program)
