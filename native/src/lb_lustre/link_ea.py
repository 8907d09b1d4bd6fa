"""The link EA: all names of an object, kept with the object itself (``trusted.link``).

Layout: ``struct link_ea_header`` and ``link_ea_entry``, lustre_idl.h; checked against recordings of Lustre 2.17.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lb_lustre.errors import LustreError
from lbcore.model import ObjectId

XATTR = "trusted.link"
_MAGIC = 0x11EAF1DF
_HEADER_LITTLE = struct.Struct("<IIQII")
_HEADER_BIG = struct.Struct(">IIQII")
_ENTRY = struct.Struct(">H16s")


class Links(NamedTuple):
    """What a link EA says."""

    names: list[tuple[ObjectId, bytes]]
    """(FID of the parent directory, base name)."""
    overflow: bool
    """True when there were more names at some time than it has room for (4096 bytes)."""


def parse(data: bytes) -> Links:
    """The names in a link EA.

    :raises LustreError: when it cannot be understood.
    """
    if len(data) < _HEADER_LITTLE.size:
        raise LustreError(f"a link EA of {len(data)} bytes is too short")
    header = _HEADER_LITTLE.unpack_from(data)
    if header[0] != _MAGIC:
        header = _HEADER_BIG.unpack_from(data)  # written by a server of the other byte order
    magic, count, size, overflow, _ = header
    if magic != _MAGIC or size > len(data):
        raise LustreError("a link EA does not begin as link EAs do")
    names = []
    at = _HEADER_LITTLE.size
    for _ in range(count):
        if at + _ENTRY.size > size:
            raise LustreError("a link EA ends within an entry")
        length, parent = _ENTRY.unpack_from(data, at)  # big-endian, as an ObjectId is
        if length <= _ENTRY.size or at + length > size:
            raise LustreError("a link EA has an entry of an impossible length")
        names.append((parent, data[at + _ENTRY.size : at + length]))
        at += length
    return Links(names, overflow != 0)
