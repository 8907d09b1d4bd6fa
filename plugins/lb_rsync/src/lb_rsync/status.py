"""What rsync's exit status means for a run."""

from __future__ import annotations

import os

from lb_rsync.output import Messages
from lbcore.errors import LbError, SourceError, TargetError

_DONE = 0
_FILE_ERROR = 11
_SOME_FILES = (23, 24)
TIMEOUT = 30
"""rsync waited longer than ``--timeout``."""
_OLD_RSYNC = (1, 2, 4)
"""Source of the numbers: rsync(1), EXIT VALUES."""


def check_status(status: int, messages: Messages, root: bytes, folder: bytes, timeout_seconds: int) -> None:
    """Return when ``status`` is at most the affair of single files; negative numbers are signals.

    :raises TargetError: when the target could not be written.
    :raises SourceError: when no data came for too long.
    :raises LbError: for all else; the message ends with rsync's last lines.
    """
    if status in (_DONE, *_SOME_FILES):
        return
    if status == TIMEOUT:
        raise SourceError(
            f"{os.fsdecode(root)}: no data came for {timeout_seconds} seconds (timeout_seconds); "
            f"look whether the filesystem hangs. rsync said:\n{messages.last}"
        )
    if status == _FILE_ERROR:
        raise TargetError(f"{os.fsdecode(folder)}: rsync could not write: {messages.last}")
    how = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
    advice = "; is it rsync 3.2.7 or newer?" if status in _OLD_RSYNC else ""
    raise LbError(f"rsync {how}{advice}\n{messages.last}")
