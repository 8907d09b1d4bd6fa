"""What the benchmarks share: the options, the scratch folder and one tree."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from bench.report import say
from bench.trees import Shape, grow, rewrite

SETTLE_SECONDS = 3.0
"""Between the last change and a backup: no backup program is to be caught by files still "young"."""

Item = TypeVar("Item")


@dataclass(kw_only=True, slots=True)
class Workspace:
    """One ``make bench``."""

    scratch: str
    """Everything that is made lies below; the caller removes it."""
    shape: Shape
    changes: int
    """Files changed before each measured incremental backup."""
    rounds: int
    renamed_files: int
    memory_files: Sequence[int]
    catalog_objects: int
    catalog_changes: int
    changelog_records: int
    changelog_fids: int
    device_records: int
    lustre_files: Sequence[int]
    lustre_changes: int
    lustre_turns: int
    """How often that many are changed, each time others."""
    _tree: str = ""
    _turn: int = field(default=0)

    def folder(self, name: str) -> str:
        """A folder below the scratch folder."""
        path = os.path.join(self.scratch, name)
        os.makedirs(path, exist_ok=True)
        return path

    def tree(self) -> str:
        """The tree of ``shape``, made when first asked for."""
        if not self._tree:
            say(f"  making {self.shape.files:,} files in {self.shape.directories:,} directories")
            self._tree = self.folder("tree")
            grow(self._tree, self.shape)
        return self._tree

    def change(self) -> None:
        """Rewrite a fresh set of ``changes`` files, and let a moment pass."""
        self._turn += 1
        rewrite(self.tree(), self.shape, self.changes, self._turn)
        time.sleep(SETTLE_SECONDS)


def alternating(items: Sequence[Item], turn: int) -> Sequence[Item]:
    """The items, in another order in each turn, so that none is always the first."""
    start = turn % len(items)
    turned = [*items[start:], *items[:start]]
    return turned if turn % 2 == 0 else turned[::-1]


def goal(ratio: float, limit: float) -> str:
    """A ratio beside what it should be."""
    return f"{ratio:.2f} (goal ≤ {limit:g}: {'met' if ratio <= limit else 'MISSED'})"
