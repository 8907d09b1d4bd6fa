"""The objects of a simulated Lustre."""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from lb_lustre.simulator.layout import Kept
from lbcore.model import ObjectId

_LINK_EA = struct.Struct("<IIQII")  # magic, number, size, time of an overflow, padding (lustre_idl.h)
_LINK_EA_MAGIC = 0x11EAF1DF
_LINK_EA_MAX_BYTES = 4096


def fail(code: int) -> OSError:
    """An error as a system call gives it."""
    return OSError(code, os.strerror(code))


@dataclass(slots=True)
class Object:
    """A file, directory, link or other thing, under its FID."""

    fid: ObjectId
    mdt: int
    mode: int
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    times: list[int] = field(default_factory=lambda: [int(time.time())] * 3)
    """atime, mtime, ctime, in whole seconds, as Lustre keeps them."""
    link_target: bytes = b""
    links: dict[tuple[ObjectId, bytes], None] = field(default_factory=dict)
    """All its names, oldest first."""
    entries: dict[bytes, ObjectId] = field(default_factory=dict)
    subdirectories: int = 0
    """How many of the entries are directories."""
    xattrs: dict[str, bytes] = field(default_factory=dict)
    recorded_at: int = -1
    """See ``Changelog.add``."""
    is_placed: bool = False
    """Whether somebody said on which server this directory lies; those below it lie there too."""
    shards: list[ObjectId] = field(default_factory=list)
    """Of a striped directory: the objects that its entries are in."""
    stale_parents: dict[ObjectId, ObjectId] = field(default_factory=dict)
    """Of parents that were migrated, the FID by which the link EA still names them."""
    opens: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """How often it is open, by user, group and how."""
    flushes: int = 0
    """How often writers were asked to send what they had cached."""
    kept: Kept = field(init=False)
    """Layout, project, stripes and state of HSM."""

    def __post_init__(self) -> None:
        self.kept = Kept(self.mode, None)

    @property
    def is_directory(self) -> bool:
        """Whether it has entries."""
        return stat.S_ISDIR(self.mode)

    def touch(self, *, content: bool) -> None:
        """Something of it changed."""
        now = int(time.time())
        self.times[2] = now
        if content:
            self.times[1] = now


def hash_of(name: bytes) -> int:
    """FNV-1a of 64 bits, by which a migrated directory is divided (seen: ``lfs getdirstripe``)."""
    value = 0xCBF29CE484222325
    for byte in name:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


def link_ea(names: Iterable[tuple[ObjectId, bytes]]) -> bytes:
    """All names of an object, as far as they fit (``struct link_ea_header``, ``link_ea_entry``)."""
    body, count, overflow = b"", 0, 0
    for parent, name in names:
        entry = struct.pack(">H", 18 + len(name)) + parent + name
        if _LINK_EA.size + len(body) + len(entry) > _LINK_EA_MAX_BYTES:
            overflow = 1
            continue
        body += entry
        count += 1
    return _LINK_EA.pack(_LINK_EA_MAGIC, count, _LINK_EA.size + len(body), overflow, 0) + body
