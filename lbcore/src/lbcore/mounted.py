"""Is the target mounted? An empty mount point looks like the target of a first backup."""

from __future__ import annotations

import os

from lbcore.config.job import JobConfig
from lbcore.errors import TargetError


def check_mounted(job: JobConfig) -> None:
    """Before anything is made or missed there.

    :raises TargetError: when nothing is mounted where ``target_mount`` says.
    """
    if job.target_mount is not None and not os.path.ismount(job.target_mount):
        raise TargetError(
            f"nothing is mounted on {os.fsdecode(job.target_mount)}, where the target {os.fsdecode(job.target)} is; "
            "mount it (or correct 'target_mount' in the configuration)"
        )


def mount_of(path: str) -> str | None:
    """The mount point that ``path``, which need not exist, is on; None for that of the root folder."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return None if path == "/" else path
