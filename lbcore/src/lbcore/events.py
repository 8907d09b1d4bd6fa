"""What observers are told while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStarted:
    """A run of a job began, or goes on after an interruption."""

    job: str
    run: int
    resumed: bool
    lb_folder: bytes
    """The job's ``.lb`` folder on the target."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFinished:
    """A stage of a run is done."""

    job: str
    run: int
    stage: str
    """``settle``, ``collect``, ``flush``, ``snapshot``, ``observe``, ``plan``, ``lift``, ``place``, ``content``,
    ``attributes``, ``verify`` or ``commit``."""
    seconds: float
    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFinished:
    """A run ended, well or not."""

    job: str
    run: int
    state: str
    exit_code: int
    message: str
    """Empty, or why the run did not end well."""
    counts: Mapping[str, int]
