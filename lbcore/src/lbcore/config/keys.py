"""The keys of ``[job.NAME]``, their types and defaults; ``docs/configuration.md`` explains each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class JobKeys:
    """A job's section as it is written. What needs more than a type check is done in ``loader``."""

    source: str
    target: str
    target_mount: str | None = None
    state_dir: str | None = None
    snapshotter: str = "none"
    detector: str = "scan"
    transfer: str | tuple[str, ...] = ("copy",)
    verify: tuple[str, ...] = ()
    executor: str = "local"
    history: str = "versions"
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    one_filesystem: bool = False
    max_delete: int | str = "25% and 1000"
    racy_seconds: float = 2.0
    max_stale: float | str = 0.0
    workers: int | None = None


JOB_KEYS = tuple(field.name for field in dataclasses.fields(JobKeys))
"""All keys, in the order of the documentation; no plugin's thing may have one of these names."""
