"""What the catalog remembers of objects that the source calls otherwise."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore.catalog.catalog import Catalog
from lbcore.model import Hint, HintFlag

A, B, C, D = (bytes([number]) * 16 for number in range(1, 5))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with contextlib.closing(Catalog.open(os.fsencode(tmp_path / "job.db"))) as opened:
        yield opened


@pytest.mark.parametrize("pairs", [[(A, B), (B, C)], [(B, C), (A, B)]], ids=["in order", "from two servers"])
def test_what_a_feed_said_of_an_object_is_said_of_its_last_id(
    catalog: Catalog, pairs: list[tuple[bytes, bytes]]
) -> None:
    with catalog.database.transaction():
        catalog.hints.add(
            [Hint(id=A, flags=HintFlag.DATA, time_ns=7), Hint(id=C, flags=HintFlag.NAMES, time_ns=5)], 1, 0
        )
        catalog.renumbered.add(pairs, 2)
    assert [(hint.id, hint.flags, hint.time_ns) for hint in catalog.hints.all()] == [
        (A, HintFlag.DATA, 7), (C, HintFlag.DATA | HintFlag.NAMES, 7)
    ]  # fmt: skip
    assert catalog.renumbered.after(A) == catalog.renumbered.after(B) == C


def test_new_ids_come_after_all_old_ones(catalog: Catalog) -> None:
    with catalog.database.transaction():
        catalog.hints.add([Hint(id=one, flags=HintFlag.NAMES, time_ns=0) for one in (A, B, C, D)], 1, 0)
        catalog.renumbered.add([(D, A), (C, B)], 1)
    assert [hint.id for hint in catalog.hints.all()] == [C, D, A, B]


def test_a_circle_ends(catalog: Catalog) -> None:
    with catalog.database.transaction():
        catalog.renumbered.add([(A, B), (B, A)], 1)
    assert catalog.renumbered.after(A) in (A, B)
    assert catalog.renumbered.before(A) is None
