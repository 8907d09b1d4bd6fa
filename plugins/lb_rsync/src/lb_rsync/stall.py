"""Notices that a process, with those it started, moves no data any more.

rsync has ``--timeout`` for this, but its processes keep each other awake (minutes instead of seconds, measured
with 3.2.7 and 3.5.0), and the one that hangs in ``open`` cannot tell.
"""

from __future__ import annotations

import time

_LOOK_SECONDS = 0.5


class Stall:
    """Watches the counters of a process and its descendants."""

    def __init__(self, pid: int, seconds: int) -> None:
        """``seconds``: without a byte read or written for so long it has stalled; 0: never."""
        self._pid = pid
        self._seconds = seconds
        self._moved = -1
        self._since = self._looked = time.monotonic()

    def reached(self) -> bool:
        """Whether it has stalled; to be asked again and again."""
        now = time.monotonic()
        if not self._seconds or now < self._looked + min(_LOOK_SECONDS, self._seconds):
            return False
        self._looked = now
        try:
            moved = _moved_bytes(self._pid)
        except PermissionError:
            # An rsync with privileges of its own (file capabilities): whether it moves data is not for us to see.
            self._since = now
            return False
        if moved != self._moved:
            self._moved, self._since = moved, now
        return now >= self._since + self._seconds


def _moved_bytes(pid: int) -> int:
    """Bytes that a process and its descendants passed through read(2) and write(2); source: proc_pid_io(5).

    :raises PermissionError: when one of them may not be looked at.
    """
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            moved = sum(int(line.split()[1]) for line in file if line.startswith((b"rchar:", b"wchar:")))
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            children = file.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended
    except PermissionError:
        if _is_zombie(pid):
            return 0
        raise
    return moved + sum(_moved_bytes(int(child)) for child in children)


def _is_zombie(pid: int) -> bool:
    """It has ended and was not waited for; only root may see its counters."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return True
