"""liblustreapi, loaded when it is asked for: this module can be imported where there is no Lustre."""

import os

from lbcore.model import ObjectId

NAME: str
VARIABLE: str

class Library:
    """One loaded library. For several threads at once.

    Its methods raise ``OSError`` as the library fails, and ``LustreUnavailableError`` where it lacks the function.
    """

    path: str
    def __init__(self) -> None: ...
    def clear(self, mdt: str, user: str, index: int) -> None: ...
    def data_version(self, fd: int, flush: bool) -> int: ...
    def hsm_state(self, path: bytes | str | os.PathLike[str]) -> tuple[int, int]: ...
    def hsm_import(
        self, path: bytes, *, archive: int, mode: int, uid: int, gid: int, size: int, mtime_ns: int,
        stripe_size: int = 0, stripe_count: int = 0, pattern: int = 0, pool: bytes | None = None,
    ) -> ObjectId: ...  # fmt: skip
    def mdt_index(self, mount: int, object_id: ObjectId) -> int: ...

class ChangelogReader:
    """The records of one metadata server, as they lie behind one another. Not for two threads at once."""

    def __init__(self, library: Library, mdt: str, start: int) -> None: ...
    def read(self) -> bytes: ...
    def close(self) -> None: ...
    def __enter__(self) -> ChangelogReader: ...
    def __exit__(self, *error: object) -> None: ...
