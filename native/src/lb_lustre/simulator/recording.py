"""What is the same in all records of a simulated Lustre, and what is wrong in some of them."""

from __future__ import annotations

import os
import time
from typing import Any

from lb_lustre.record import Record, Type
from lbcore.model import ObjectId

_STALE = frozenset({Type.OPEN, Type.CLOSE, Type.XATTR, Type.LYOUT, Type.TRUNC, Type.HSM})
"""Records whose parent is what an earlier request left behind (section 9, item 14)."""
_OPEN_BITS = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND


def open_bits(flags: int) -> int:
    """The flags of open(2) as a record has them: reading is 1, writing 2."""
    return (flags & os.O_ACCMODE) + 1 | flags & _OPEN_BITS


class Recorder:
    """Fills in the records of all servers, which share the threads that answer requests."""

    def __init__(self) -> None:
        self._left_behind: ObjectId = bytes(16)

    def fill(self, kind: Type, target: ObjectId, *, parent: ObjectId = bytes(16), **fields: Any) -> Record:
        """A record, all but its index."""
        if kind in _STALE:
            parent = self._left_behind
        elif fields.get("name"):
            self._left_behind = parent
        return Record(
            index=0, type=kind, time_ns=time.time_ns(), target=target, parent=parent, jobid=b"simulated.0",
            owner=(0, 0), nid=bytes(24), **fields,
        )  # fmt: skip
