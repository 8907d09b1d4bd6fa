"""Long sequences that do not fit in memory: they overflow into an anonymous temporary file."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Iterator
from typing import Any


class SpillStack:
    """A last-in, first-out store of tuples of plain values; at most some thousands are in memory."""

    def __init__(self, block: int = 20_000) -> None:
        self._block = block
        self._top: list[tuple[Any, ...]] = []
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the stack
        self._starts: list[int] = []

    def push(self, item: tuple[Any, ...]) -> None:
        """Put an item on top."""
        self._top.append(item)
        if len(self._top) >= 2 * self._block:
            self._starts.append(self._file.seek(0, 2))
            marshal.dump(self._top[: self._block], self._file)
            del self._top[: self._block]

    def pop(self) -> tuple[Any, ...] | None:
        """Take the topmost item, or None when there is none."""
        if not self._top and self._starts:
            start = self._starts.pop()
            self._file.seek(start)
            self._top = marshal.load(self._file)  # noqa: S302 - an unlinked file of our own
            self._file.truncate(start)
        return self._top.pop() if self._top else None

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


class SpillList:
    """An append-only list of tuples of plain values, read from its beginning."""

    def __init__(self, block: int = 20_000) -> None:
        self._block = block
        self._last: list[tuple[Any, ...]] = []
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the list
        self._blocks = 0

    def append(self, item: tuple[Any, ...]) -> None:
        """Add an item."""
        self._last.append(item)
        if len(self._last) >= self._block:
            marshal.dump(self._last, self._file)
            self._blocks += 1
            self._last = []

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Every item; nothing may be appended meanwhile."""
        self._file.seek(0)
        for _ in range(self._blocks):
            yield from marshal.load(self._file)  # noqa: S302 - an unlinked file of our own
        self._file.seek(0, 2)
        yield from self._last

    def close(self) -> None:
        """Give the space back."""
        self._file.close()
