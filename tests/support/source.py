"""The source of a test's job: make and move files by their path in it."""

from __future__ import annotations

import os

from lbcore.testing.job import Job
from tests.support.changes import write


def at(job: Job, path: str | bytes) -> bytes:
    """The path in the source."""
    return os.path.join(job.source, os.fsencode(path))


def put(job: Job, *paths: str | bytes) -> None:
    """Make files whose content is their path."""
    for path in paths:
        os.makedirs(os.path.dirname(at(job, path)), exist_ok=True)
        write(at(job, path), os.fsencode(path))


def move(job: Job, old: str | bytes, new: str | bytes) -> None:
    """Rename within the source."""
    os.rename(at(job, old), at(job, new))
