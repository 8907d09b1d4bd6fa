"""What rsync's exit status means for a run."""

from __future__ import annotations

import os

from lb_rsync.output import Messages
from lbcore.errors import LbError, TargetError

_DONE = 0
_FILE_ERROR = 11
_SOME_FILES = (23, 24)
_OLD_RSYNC = (1, 2, 4)
"""Source of the numbers: rsync(1), EXIT VALUES."""


def check_status(status: int, messages: Messages, folder: bytes) -> None:
    """Return when ``status`` is at most the affair of single files; negative numbers are signals.

    :raises TargetError: when the target could not be written.
    :raises LbError: for all else; the message ends with rsync's last lines.
    """
    if status in (_DONE, *_SOME_FILES):
        return
    if status == _FILE_ERROR:
        raise TargetError(f"{os.fsdecode(folder)}: rsync could not write: {messages.last}")
    how = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
    advice = "; is it rsync 3.2.7 or newer?" if status in _OLD_RSYNC else ""
    raise LbError(f"rsync {how}{advice}\n{messages.last}")
