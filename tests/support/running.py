"""Runs that must go well, or stop where they are told to, and what they left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lbcore.progress import Progress
from lbcore.run import Outcome
from lbcore.testing import read_tree
from lbcore.testing.job import Job

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: devices, mounts, owners")


def both_detectors(test: Callable[..., None]) -> Any:
    """Run a test with a scan and with a feed."""
    return pytest.mark.parametrize("detector", ["scan", "feed"])(test)


def run_well(job: Job, **options: Any) -> Outcome:
    """A run that must end with status 0 and nothing to say."""
    outcome = job.run(**options)
    assert (outcome.exit_code, outcome.message) == (0, "")
    return outcome


def backed_up(job: Job, **options: Any) -> Outcome:
    """A run that must make the backup equal to the source."""
    outcome = run_well(job, **options)
    assert job.differences() == []
    return outcome


def problems(job: Job, run: int) -> dict[bytes, str]:
    """What the run could not read, and why."""
    with job.catalog() as catalog:
        return {problem.path: problem.reason for problem in catalog.runs.problems(run)}


def names_at(job: Job, run: int) -> dict[bytes, Any]:
    """The paths of a point in time, by the catalog alone."""
    found: dict[bytes, Any] = {b"": None}
    with job.catalog() as catalog:
        waiting = [(1, b"")]
        while waiting:
            parent, path = waiting.pop()
            for name, obj in catalog.names.children_at(parent, run):
                below = os.path.join(path, name)
                found[below] = None
                waiting.append((obj, below))
    return found


def covered(job: Job) -> list[bytes]:
    """The paths in the mirror."""
    return sorted(read_tree(job.tree).keys() - {b""})


@contextlib.contextmanager
def mounted(path: bytes) -> Iterator[None]:
    """An empty filesystem over a directory."""
    subprocess.run(["mount", "-t", "tmpfs", "lb-test", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


class UntilContent(Progress):
    """Asks for a pause once content is delivered."""

    reached = False

    def stage(self, name: str, total: int | None = None) -> None:
        """Remember that the content's turn has come."""
        self.reached |= name == "content"


class PauseAt:
    """Asks for a pause at one of the places where a run asks."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked >= self.place
