"""Changelog records, reduced to a set of FIDs with flags."""

from collections.abc import Iterator
from typing import TypeAlias

from lbcore.model import ObjectId

Buffer: TypeAlias = bytes | bytearray | memoryview

DATA: int
ATTRIBUTES: int
NAMES: int
OPEN: int
CLOSED: int
PASSING: int
LIST: int
RECORD_SIZE_MAX: int
ENTRIES_MAX: int

class Stream:
    """Where one metadata server's changelog has been read to, and what was noticed on the way."""

    expected: int
    first: int
    last: int
    last_time: int
    records: int
    unknown: int
    went_back: bool
    holes: list[tuple[int, int]]
    watched: tuple[int, ObjectId] | None
    def __init__(self, expected: int = 0, watch: int = 0, known: int = 0) -> None: ...
    @property
    def last_fid(self) -> ObjectId | None: ...
    @property
    def types(self) -> dict[int, int]: ...

class Reduction:
    """A set of FIDs with what records said of each. Not for two threads at once."""

    def __init__(self, limit: int = ...) -> None: ...
    def __len__(self) -> int: ...
    @property
    def full(self) -> bool: ...
    @property
    def memory_bytes(self) -> int: ...
    def renumbered(self) -> Iterator[tuple[ObjectId, ObjectId]]: ...
    def feed(self, buffer: Buffer, stream: Stream) -> int: ...
    def hints(self) -> Iterator[tuple[ObjectId, int, int]]: ...
