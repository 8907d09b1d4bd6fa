"""The nouns of lb that pass between its parts: hints, observations, listings, views."""

from __future__ import annotations

import enum
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

ObjectId = bytes
"""What names an object for as long as it lives: 16 bytes on POSIX (inode, birth, kind), the FID on Lustre."""


class Attributes(NamedTuple):
    """What ``lstat`` says of an object, as far as it is kept.

    A named tuple, as all of which there is one for each file: a frozen dataclass takes five times as long to make.
    """

    mode: int
    """``st_mode``: kind and permission bits, set-uid and sticky included."""
    uid: int
    gid: int
    nlink: int
    size: int
    """Bytes; of no meaning for directories."""
    mtime_ns: int
    ctime_ns: int
    rdev: int
    """Device number of a character or block device, else 0."""

    @property
    def kind(self) -> int:
        """The file type bits, such as ``stat.S_IFREG``."""
        return stat.S_IFMT(self.mode)


class HintFlag(enum.IntFlag):
    """What a record said may have changed."""

    DATA = 1
    ATTRIBUTES = 2
    NAMES = 4
    OPEN = 8
    """Open for writing when the feed was cut: looked at again next time."""
    CLOSED = 16
    """Closed, and not opened again: takes an earlier OPEN away."""
    PASSING = 32
    """Made and removed before the feed was cut: of no interest unless the catalog knows it."""
    LIST = 64
    """A directory that lost a name of an object that the feed did not name: its entries are to be listed."""
    DAMAGED = 128
    """Not a word of a feed: the mirror does not hold what the catalog says. It is brought again."""
    WHOLE = 256
    """Not a word of a feed: a directory that could not be listed. It is walked, with all that is below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """An object that may have changed."""

    id: ObjectId
    flags: HintFlag
    time_ns: int
    """Time of the last data record by the feed's own clock; 0 when unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One object as the view shows it now: all its names, or ``attributes=None`` when it is gone."""

    id: ObjectId
    attributes: Attributes | None
    names: tuple[tuple[ObjectId, bytes], ...] = ()
    """All names within the job's scope, as (id of the parent directory, base name)."""
    untold: int = 0
    """How many names it has besides these, anywhere: they are looked for where the object had one, and in hinted
    directories."""
    link_target: bytes | None = None
    """Target of a symbolic link."""
    extras: Mapping[str, bytes] = field(default_factory=dict)
    """Extended attributes and ACLs (key ``xattr:`` + name) and what plugins keep with an object."""


class Entry(NamedTuple):
    """One name in a listed directory."""

    name: bytes
    id: ObjectId
    attributes: Attributes
    mount: bool = False
    """True for the root of another filesystem mounted here."""
    has_xattrs: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What one directory holds now. A large directory comes in parts, one after the other."""

    directory: ObjectId
    path: bytes
    """Relative to the view's root; ``b""`` is the root itself."""
    entries: list[Entry] | None
    """None: exactly what the catalog holds, as the fingerprint proved; nothing to compare."""
    fingerprint: int | None
    """To be remembered once all of it is in the backup; None when it must be looked at again."""
    part: bool = False
    """True when the directory comes in several parts."""
    last: bool = True
    """False for all parts but the last."""
    again: bool = False
    """True when the directory changed while it was read: this replaces its earlier listing."""
    kept: frozenset[bytes] = frozenset()
    """Names that could not be looked at: their objects stay in the backup as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A part of the view that could not be looked at: nothing below it counts as gone."""

    path: bytes
    reason: str
    directory: ObjectId | None = None
    """The directory that could not be read, when it is one."""
    object: ObjectId | None = None
    """The object that a hint named, when that could not be looked at: the hint stays for the next run."""
    moving: bool = False
    """True when it was listed, and changed whenever it was: what was seen of it may not be all."""


Seen = Observation | Listing | Unreadable
"""What a detector's ``observe`` yields."""


class ById(Protocol):
    """How the files of a live tree are read by id, whatever becomes of their names meanwhile. Can be pickled."""

    def path(self, object_id: ObjectId) -> bytes:
        """Absolute path of an object, under whatever name it has by now; nothing is there when it is gone."""

    def version(self, fd: int) -> int | None:
        """A number that is another one once the content of the open file is another; None where nobody can tell.

        :raises OSError: when it cannot be had now.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A readable state of the source, mounted at ``root``."""

    root: bytes
    """Absolute path."""
    stable: bool
    """True when nothing can change in it (a snapshot); False for the live tree."""
    name: str = "live"
    """The snapshot's name, for messages."""
    filesystem: str = ""
    """What the filesystem in the snapshot calls itself, where that is another name than the source's (Lustre)."""
    late_data: bool = False
    """True when what was written shortly before the snapshot may be missing in it, under the size and times of the
    finished file (Lustre: clients send their pages later)."""
    by_id: ById | None = None
    """How files are to be read, where this is the live tree of a filesystem that can do it; else by their paths."""


class TransferItem(NamedTuple):
    """A file whose content is to be brought to the target."""

    obj: int
    """The catalog's number of the object; unique within a batch."""
    path: bytes
    """Where it is in the view, relative to the root."""
    id: ObjectId
    attributes: Attributes
    """As observed; what is read must belong to this state."""
    basis: bytes | None
    """Where the mirror holds its present content, relative to the tree; None for a new file."""


class Delivered(NamedTuple):
    """The content of ``obj`` lies complete at ``path``, unchanged while it was read."""

    obj: int
    path: bytes
    """Relative to the folder that the transfer was given."""
    digest: bytes
    """xxh3-128 of the content, 16 bytes, canonical (big-endian) form."""
    sent_bytes: int
    """What went over the transfer's channel."""


class NotDelivered(NamedTuple):
    """The content of ``obj`` could not be brought; it stays as it was and is tried again next run."""

    obj: int
    reason: str
    changed: bool = False
    """True when the file only changed while it was read."""


Delivery = Delivered | NotDelivered
