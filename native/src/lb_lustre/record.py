"""One changelog record as an object: to look at, to print as ``lfs changelog`` does, and to make.

The program itself reads records in ``_records``; this is the plain form of the same layout (section 1 of the
reference; include/uapi/linux/lustre/lustre_user.h of Lustre 2.17), which that one is tested against.
"""

from __future__ import annotations

import datetime
import enum
import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lb_lustre import fid
from lb_lustre.errors import MalformedError
from lbcore.model import ObjectId

_BASE = struct.Struct("<HHIQQQQIIQII")
_RENAME = struct.Struct("<QIIQII")
_EXTRA = struct.Struct("<Q")
_OWNER = struct.Struct("<QQ")
_NID_BE = struct.Struct(">BBHIIII4x")
_NID4 = struct.Struct("<IHH16x")
_OPEN = struct.Struct("<I")
_JOBID_BYTES = 32
_XATTR_BYTES = 256

_NO_FID = bytes(16)
_NETWORKS = {2: "tcp", 5: "o2ib", 9: "lo", 13: "gni", 16: "kfi"}
"""LND types (lnet-types.h)."""
_LOOPBACK = 9


class Type(enum.IntEnum):
    """What happened; the names are those of ``lfs changelog``."""

    MARK = 0
    CREAT = 1
    MKDIR = 2
    HLINK = 3
    SLINK = 4
    MKNOD = 5
    UNLNK = 6
    RMDIR = 7
    RENME = 8
    RNMTO = 9
    OPEN = 10
    CLOSE = 11
    LYOUT = 12
    TRUNC = 13
    SATTR = 14
    XATTR = 15
    HSM = 16
    MTIME = 17
    CTIME = 18
    ATIME = 19
    MIGRT = 20
    FLRW = 21
    RESYNC = 22
    GXATR = 23
    NOPEN = 24


class Format(enum.IntFlag):
    """The high bits of ``cr_flags``: which extensions a record has."""

    VERSION = 0x1000
    RENAME = 0x2000
    JOBID = 0x4000
    EXTRA_FLAGS = 0x8000


class Extra(enum.IntFlag):
    """``cr_extra_flags``: which further extensions a record has."""

    OWNER = 0x01
    NID = 0x02
    OPEN = 0x04
    XATTR = 0x08
    NID_BE = 0x10


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A changelog record. Extensions that are not there are None."""

    index: int
    type: int
    """A number of ``Type``, or one that only a newer Lustre knows."""
    time_ns: int
    target: ObjectId = _NO_FID
    parent: ObjectId = _NO_FID
    name: bytes = b""
    type_flags: int = 0
    """The low 12 bits of ``cr_flags``: their meaning depends on the type."""
    source: ObjectId | None = None
    """Of a rename or migration: the object that moved, or its old FID."""
    source_parent: ObjectId = _NO_FID
    source_name: bytes = b""
    jobid: bytes | None = None
    owner: tuple[int, int] | None = None
    """User and group id of who did it."""
    nid: bytes | None = None
    """24 bytes: from which client."""
    open_flags: int | None = None
    xattr: bytes | None = None
    nid_be: bool = False
    """Whether ``nid`` is of the newer form (Lustre 2.16), which holds IPv6 addresses too."""
    version: bool = True
    """Whether the record says so itself; renames from the device do not (section 9, item 18)."""

    @property
    def extra_flags(self) -> Extra:
        """``cr_extra_flags``, as the extensions that are there ask for."""
        flags = Extra.NID_BE if self.nid_be else Extra(0)
        flags |= Extra.OWNER if self.owner is not None else Extra(0)
        flags |= Extra.NID if self.nid is not None else Extra(0)
        flags |= Extra.OPEN if self.open_flags is not None else Extra(0)
        return flags | (Extra.XATTR if self.xattr is not None else Extra(0))

    def encode(self) -> bytes:
        """The record as the device gives it."""
        extra = self.extra_flags
        tail = b""
        if self.owner is not None:
            tail += _OWNER.pack(*self.owner)
        if self.nid is not None:
            tail += self.nid.ljust(24, b"\0")
        if self.open_flags is not None:
            tail += _OPEN.pack(self.open_flags)
        if self.xattr is not None:
            tail += self.xattr.ljust(_XATTR_BYTES, b"\0")
        formats = Format.VERSION if self.version else Format(0)
        body = b""
        name = self.name
        if self.source is not None:
            formats |= Format.RENAME
            body += _RENAME.pack(*fid.unpack(self.source), *fid.unpack(self.source_parent))
            name += b"\0" + self.source_name
        if self.jobid is not None:
            formats |= Format.JOBID
            body += self.jobid.ljust(_JOBID_BYTES, b"\0")
        if extra:
            formats |= Format.EXTRA_FLAGS
            body += _EXTRA.pack(extra)
        seconds, nanoseconds = divmod(self.time_ns, 10**9)
        base = _BASE.pack(
            len(name), self.type_flags | formats, self.type, self.index, 0, seconds << 30 | nanoseconds,
            *fid.unpack(self.target), *fid.unpack(self.parent),
        )  # fmt: skip
        return base + body + tail + name

    def text(self) -> bytes:
        """The line that ``lfs changelog`` prints, without its end. A name may hold anything, an end of line too."""
        when = datetime.datetime.fromtimestamp(self.time_ns // 10**9, datetime.timezone.utc)
        known = self.type in Type._value2member_map_
        head = (
            f"{self.index} {self.type:02d}{(Type(self.type).name if known else '?'):<5} {when:%H:%M:%S}."
            f"{self.time_ns % 10**9:09d} {when:%Y.%m.%d} 0x{self.type_flags:x} t={_fid_text(self.target)}"
        )
        parts = [head.encode()]
        if self.jobid is not None:
            parts.append(b"j=" + self.jobid)
        if self.extra_flags:
            # lfs asks for the newer form of NIDs, and says so
            parts.append(b"ef=0x%x" % (self.extra_flags | (Extra.NID_BE if self.nid is not None else 0)))
        if self.owner is not None:
            parts.append(b"u=%d:%d" % self.owner)
        if self.nid is not None:
            parts.append(b"nid=" + _nid_text(self.nid, self.nid_be))
        if self.open_flags is not None:
            # 1 read, 2 write, 4 execute: the low bits of the open flags
            modes = zip((b"r", b"w", b"x"), (1, 2, 4), strict=True)
            parts.append(b"m=" + b"".join(letter if self.open_flags & bit else b"-" for letter, bit in modes))
        if self.xattr is not None:
            parts.append(b"x=" + self.xattr)
        if self.parent != _NO_FID:
            parts.append(b"p=" + _fid_text(self.parent).encode())
        if self.name:
            parts.append(self.name)
        if self.source is not None and self.source != _NO_FID:
            parts.append(b"s=%s sp=%s" % (_fid_text(self.source).encode(), _fid_text(self.source_parent).encode()))
            if self.source_name:
                parts.append(self.source_name)
        return b" ".join(parts)


def _fid_text(object_id: ObjectId) -> str:
    return fid.text(object_id) if object_id != _NO_FID else "[0:0x0:0x0]"


def _nid_text(nid: bytes, newer: bool) -> bytes:
    if newer:
        size, kind, number, *address = _NID_BE.unpack(nid)
    else:
        address0, number, kind = _NID4.unpack(nid)
        size, address = 0, [address0]
    if kind == 0:
        return b"0@<0:0>"
    network = f"{_NETWORKS.get(kind, kind)}{number or ''}"
    if size:
        return f"{ipaddress.IPv6Address(struct.pack('>IIII', *address))}@{network}".encode()
    return f"{address[0] if kind == _LOOPBACK else ipaddress.IPv4Address(address[0])}@{network}".encode()


def decode(data: bytes) -> Iterator[Record]:
    """The records that lie back to back in ``data``.

    :raises MalformedError: where they cannot be understood, after those before that place.
    """
    offset, last = 0, 0
    while offset < len(data):
        try:
            record, offset = _decode_one(data, offset)
        except (struct.error, ValueError) as error:
            raise MalformedError(after_index=last, offset_bytes=offset, reason=str(error)) from error
        last = record.index
        yield record


def _decode_one(data: bytes, start: int) -> tuple[Record, int]:
    name_size, flags, kind, index, _, time, *fids = _BASE.unpack_from(data, start)
    end = start + _BASE.size

    def take(count: int) -> bytes:
        nonlocal end
        if end + count > len(data):
            raise ValueError("the record goes on beyond what was read")
        end += count
        return data[end - count : end]

    source = source_parent = jobid = owner = nid = open_flags = xattr = None
    extra = 0
    if flags & Format.RENAME:
        moved = _RENAME.unpack(take(_RENAME.size))
        source, source_parent = fid.pack(*moved[:3]), fid.pack(*moved[3:])
    if flags & Format.JOBID:
        jobid = take(_JOBID_BYTES).partition(b"\0")[0]
    if flags & Format.EXTRA_FLAGS:
        (extra,) = _EXTRA.unpack(take(_EXTRA.size))
        if extra & Extra.OWNER:
            owner = _OWNER.unpack(take(_OWNER.size))
        if extra & Extra.NID:
            nid = take(24)
        if extra & Extra.OPEN:
            (open_flags,) = _OPEN.unpack(take(_OPEN.size))
        if extra & Extra.XATTR:
            xattr = take(_XATTR_BYTES).partition(b"\0")[0]
        if extra & ~0x1F:
            raise ValueError(f"it has extensions of unknown length (0x{extra:x})")
    name, _, source_name = take(name_size).partition(b"\0") if source is not None else (take(name_size), b"", b"")
    record = Record(
        index=index, type=kind, time_ns=(time >> 30) * 10**9 + (time & 0x3FFFFFFF), target=fid.pack(*fids[:3]),
        parent=fid.pack(*fids[3:]), name=name, type_flags=flags & 0xFFF, source=source,
        source_parent=source_parent or _NO_FID, source_name=source_name, jobid=jobid, owner=owner, nid=nid,
        open_flags=open_flags, xattr=xattr, nid_be=bool(extra & Extra.NID_BE), version=bool(flags & Format.VERSION),
    )  # fmt: skip
    return record, end
