"""What ``[job.NAME.rsync]`` may hold."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RATE = re.compile(r"[0-9]+(\.[0-9]+)?([KMGT](i?B)?)?", re.IGNORECASE)
"""Source: rsync(1), --bwlimit and --max-size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RsyncOptions:
    """How rsync is run. Nothing here can weaken what is promised of a delivered file.

    :raises ValueError: naming the key that rsync would refuse.
    """

    program: str = "rsync"
    """Name (found on ``PATH``) or path of rsync; 3.2.7 and 3.5.0 are tested."""
    whole_file: bool | None = None
    """True: send files whole. False: send differences to the mirror's file. None: as rsync chooses, which is
    whole between two local paths."""
    bandwidth_limit: str = ""
    """At most this much per second and worker, as ``20M``; a plain number counts KiB; empty: no limit."""
    timeout_seconds: int = 1800
    """Give up when no data moved for this long; 0: wait for ever."""

    def __post_init__(self) -> None:
        if not self.program:
            raise ValueError("program: must name rsync, as 'rsync' or '/usr/bin/rsync'")
        if self.bandwidth_limit and not _RATE.fullmatch(self.bandwidth_limit):
            raise ValueError(f"bandwidth_limit: {self.bandwidth_limit!r} is not a rate; write it as '20M'")
        if self.timeout_seconds < 0:
            raise ValueError(f"timeout_seconds: must be at least 0, found {self.timeout_seconds}")
