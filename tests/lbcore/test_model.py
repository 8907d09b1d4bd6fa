"""Random trees and random changes: the backup equals the source, and every earlier point in time stays what it was."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbcore.testing import Tree, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.changes import KINDS, Change, Changer
from tests.support.feed import Feed
from tests.support.points import read_point

NUMBERS = st.integers(min_value=0, max_value=40)
CHANGES = st.builds(Change, st.sampled_from(sorted(KINDS)), NUMBERS, NUMBERS, NUMBERS)
ROUNDS = st.lists(st.lists(CHANGES, max_size=10), min_size=1, max_size=5)

STANDARD = [
    Change(*change)
    for change in [
        ("mkdir", 0, 0, 0),
        ("mkdir", 0, 2, 0),
        ("mkdir", 1, 1, 0),
        ("mkdir", 2, 2, 0),
        ("create", 0, 3, 1),
        ("create", 1, 2, 2),
        ("create", 2, 3, 3),
        ("create", 3, 4, 4),
        ("link", 0, 2, 4),
        ("symlink", 2, 5, 1),
        ("fifo", 3, 5, 0),
    ]
]


def check(job: Job, rounds: list[list[Change]], *, standard: bool) -> None:
    """A run after each round of changes."""
    changer = Changer(job.source, job.source + b"-outside")
    points: dict[int, Tree] = {}
    for changes in [STANDARD, *rounds] if standard else rounds:
        for change in changes:
            changer.make(change)
        outcome = job.run()
        assert (outcome.exit_code, outcome.message) == (0, "")
        source = read_tree(job.source)
        assert compare_trees(source, job.tree) == []
        points[outcome.run] = source
    for run, source in points.items():
        assert compare_trees(source, read_point(job.target, run)) == [], f"run {run}"


@pytest.mark.parametrize("detector", ["scan", "feed", "sparse feed"])
@given(rounds=ROUNDS, standard=st.booleans(), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=100)
def test_the_backup_equals_the_source_after_each_run_and_so_does_every_point_in_time(
    detector: str, rounds: list[list[Change]], standard: bool, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if detector == "scan":
            job = Job(os.fsencode(folder), max_delete="100%")
        else:
            feed = Feed(seed=seed or None, sparse=detector == "sparse feed")
            job = Job(os.fsencode(folder), feed, detector="feed", max_delete="100%")
        check(job, rounds, standard=standard)
