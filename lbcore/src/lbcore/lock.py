"""One run at a time on a target: an flock(2) on ``.lb/lock``, which says who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator

from lbcore.errors import LockedError


@contextlib.contextmanager
def locked(path: bytes) -> Iterator[None]:
    """Hold the lock while the block runs. The kernel lets go of it when the process ends, however it ends.

    :raises LockedError: when another process holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 1000, 0).decode(errors="replace").strip() or "another process"
            raise LockedError(f"{os.fsdecode(path)} is held by {holder}; try again when that run is done") from None
        os.ftruncate(fd, 0)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)
