"""One at a time on a target: an flock(2) on a file in ``.lb``, which says who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator

from lbcore.errors import LockedError

_log = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 0.1


@contextlib.contextmanager
def locked(path: bytes, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock while the block runs. The kernel lets go of it when the process ends, however it ends.

    :param waiting: wait for it, and call this again and again meanwhile; what it raises ends the waiting.
    :raises LockedError: when another process holds it, and nobody waits.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _taken(fd):
            holder = os.pread(fd, 1000, 0).decode(errors="replace").strip() or "another process"
            if waiting is None:
                raise LockedError(f"{os.fsdecode(path)} is held by {holder}; try again when that is done")
            _log.info("%s is held by %s; waiting for it", os.fsdecode(path), holder)
            _wait(fd, waiting)
        os.ftruncate(fd, 0)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _wait(fd: int, waiting: Callable[[], None]) -> None:
    while not _taken(fd):
        waiting()
        time.sleep(_LOOK_AGAIN_SECONDS)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
