"""File identifiers: what names an object of Lustre, on whichever server it is.

An ``ObjectId`` is a FID as 16 bytes: sequence, object id and version, big-endian, so that ids sort as FIDs do.
"""

from __future__ import annotations

import re
import struct

from lbcore.model import ObjectId

_PACKED = struct.Struct(">QII")
_TEXT = re.compile(r"\[?0x([0-9a-fA-F]{1,16}):0x([0-9a-fA-F]{1,8}):0x([0-9a-fA-F]{1,8})\]?\Z")

ROOT = _PACKED.pack(0x200000007, 1, 0)
"""The root directory of every Lustre filesystem (FID_SEQ_ROOT, lustre_fid.h)."""


def pack(sequence: int, object_id: int, version: int) -> ObjectId:
    """An ``ObjectId`` from the three numbers."""
    return _PACKED.pack(sequence, object_id, version)


def text(object_id: ObjectId) -> str:
    """As ``lfs`` prints it: ``[0x200000bd1:0x3:0x0]``."""
    return "[0x{:x}:0x{:x}:0x{:x}]".format(*_PACKED.unpack(object_id))


def parse(written: str) -> ObjectId:
    """The FID that ``written`` says, with or without brackets.

    :raises ValueError: when it says none.
    """
    found = _TEXT.match(written)
    if found is None:
        raise ValueError(f"'{written}' is no FID, such as [0x200000401:0x1:0x0]")
    return pack(*(int(part, 16) for part in found.groups()))


def unpack(object_id: ObjectId) -> tuple[int, int, int]:
    """Sequence, object id and version."""
    return _PACKED.unpack(object_id)
