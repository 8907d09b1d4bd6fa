"""How names, messages and tables are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lbcore.printable import printable, printable_message

__all__ = ["columns", "printable", "printable_message"]


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines in which each column but the last is as wide as its widest cell."""
    table = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
