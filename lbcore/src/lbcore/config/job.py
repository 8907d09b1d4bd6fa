"""What the configuration says, checked and complete: what the rest of lb reads."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from lbcore.config.limits import MaxDelete
from lbcore.config.options import suggestion
from lbcore.errors import UsageError
from lbcore.plugins.types import (
    DetectorPlugin,
    ExecutorPlugin,
    ExtrasPlugin,
    Registration,
    SnapshotterPlugin,
    TransferPlugin,
    VerifierPlugin,
)

R = TypeVar("R", bound=Registration)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen(Generic[R]):
    """A thing of a plugin that a job uses, with its options."""

    name: str
    registration: R
    options: Any
    """An instance of ``registration.config``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobConfig:
    """One source, one target, and how."""

    name: str
    source: bytes
    """Absolute and normalised; symbolic links in it are not resolved."""
    target: bytes
    """Absolute and normalised; symbolic links in it are not resolved."""
    target_mount: bytes | None
    """The target, or a folder above it, where something has to be mounted before the target is used."""
    state_dir: bytes | None
    """Where the database is, when not in ``.lb`` on the target."""
    snapshotter: Chosen[SnapshotterPlugin]
    detector: Chosen[DetectorPlugin]
    transfers: tuple[Chosen[TransferPlugin], ...]
    """At least one; asked in this order."""
    verifiers: tuple[Chosen[VerifierPlugin], ...]
    executor: Chosen[ExecutorPlugin]
    extras: tuple[Chosen[ExtrasPlugin], ...]
    """All that are installed; those that apply to the source are used."""
    history: str
    """How earlier points in time are kept: ``versions``."""
    exclude: tuple[str, ...]
    """gitignore lines."""
    include: tuple[str, ...]
    """gitignore lines that bring back what ``exclude`` took."""
    one_filesystem: bool
    max_delete: MaxDelete
    racy_seconds: float
    """A file whose last change is younger than this is looked at again by the next run."""
    max_stale_seconds: float
    """How long a file that keeps changing may stay uncaptured before that counts as an error."""
    workers: int

    def chosen(self) -> tuple[Chosen[Any], ...]:
        """Every plugin thing the job uses."""
        return (self.snapshotter, self.detector, *self.transfers, *self.verifiers, self.executor, *self.extras)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A configuration file."""

    path: str
    jobs: dict[str, JobConfig]
    """The jobs that can run, in the order of the file."""
    broken: dict[str, UsageError] = field(default_factory=dict)
    """The jobs that cannot, and why; they do not keep the others from running."""

    def job(self, name: str | None) -> JobConfig:
        """The job of that name; with None the only one there is.

        :raises UsageError: when there is no such job, when it is broken, or when several could be meant.
        """
        names = [*self.jobs, *self.broken]
        if name is None:
            if len(names) != 1:
                raise UsageError(f"{self.path}: say which job is meant: {', '.join(names)}")
            name = names[0]
        if name in self.broken:
            raise self.broken[name]
        if name not in self.jobs:
            raise UsageError(f"{self.path}: there is no job '{name}'; {suggestion(name, names)}")
        return self.jobs[name]

    def check(self) -> None:
        """Refuse a file in which any job is broken.

        :raises UsageError: with a line for each broken job.
        """
        if self.broken:
            # Two jobs may be broken for one reason: that they are in each other's way.
            raise UsageError("\n".join(dict.fromkeys(str(error) for error in self.broken.values())))


def to_plain(job: JobConfig) -> dict[str, Any]:
    """What is in effect, under the keys of the configuration file, as JSON and TOML can hold it."""
    plain: dict[str, Any] = {
        "source": os.fsdecode(job.source),
        "target": os.fsdecode(job.target),
        "target_mount": None if job.target_mount is None else os.fsdecode(job.target_mount),
        "state_dir": None if job.state_dir is None else os.fsdecode(job.state_dir),
        "snapshotter": job.snapshotter.name,
        "detector": job.detector.name,
        "transfer": [chosen.name for chosen in job.transfers],
        "verify": [chosen.name for chosen in job.verifiers],
        "executor": job.executor.name,
        "history": job.history,
        "exclude": list(job.exclude),
        "include": list(job.include),
        "one_filesystem": job.one_filesystem,
        "max_delete": str(job.max_delete),
        "racy_seconds": job.racy_seconds,
        "max_stale": job.max_stale_seconds,
        "workers": job.workers,
    }
    for chosen in job.chosen():
        options = plain_options(chosen)
        if options:
            plain.setdefault(chosen.name, {}).update(options)
    return plain


def plain_options(chosen: Chosen[Any]) -> dict[str, Any]:
    """The options of a thing in the same form."""
    values = {
        option.name: getattr(chosen.options, option.name)
        for option in dataclasses.fields(chosen.registration.config)
        if option.init
    }
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
