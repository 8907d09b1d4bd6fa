"""The programs that are compared, each with its own copy of the tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from bench.measure import BenchError, Sample, run


def lb_program() -> str:
    """The ``lb`` that belongs to this Python."""
    beside = os.path.join(os.path.dirname(sys.executable), "lb")
    found = beside if os.path.exists(beside) else shutil.which("lb")
    if found is None:
        raise BenchError("there is no `lb` beside this Python nor on PATH: run `make bench`")
    return found


def version(*argv: str) -> str | None:
    """First line of what a program says about itself; None when it is not installed."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip()


class Peer(ABC):
    """A backup program with its own target below ``scratch``."""

    name: str
    version_command: tuple[str, ...]

    def __init__(self, source: str, scratch: str, label: str | None = None) -> None:
        self.source = source
        self.label = label or self.name
        self.scratch = os.path.join(scratch, self.label.replace(" ", "-"))
        self.target = os.path.join(self.scratch, "target")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("LB_")}
        self._turn = 0

    @classmethod
    def installed(cls) -> bool:
        """Whether the program can be run here."""
        return version(*cls.version_command) is not None

    def clear(self) -> None:
        """Remove what earlier backups left, and make the target anew."""
        if os.path.exists(self.scratch):
            shutil.rmtree(self.scratch)
        os.makedirs(self.target)
        self.prepare()

    def prepare(self) -> None:
        """What is done once for a target, unmeasured."""
        return

    @abstractmethod
    def commands(self) -> Sequence[Sequence[str]]:
        """One whole backup."""

    def backup(self, *, sample_memory: bool = False) -> Sample:
        """Make a backup, measured."""
        self._turn += 1
        return run(*self.commands(), environment=self.environment, sample_memory=sample_memory)


class Lb(Peer):
    """``lb run``; the configuration is what ``lb init`` writes but for the transfers."""

    name = "lb"
    version_command = (lb_program(), "--version")

    def __init__(self, source: str, scratch: str, transfer: str | None = None) -> None:
        super().__init__(source, scratch, f"lb {transfer}" if transfer else None)
        self._transfer = transfer
        self.configuration = os.path.join(self.scratch, "lb.toml")

    def prepare(self) -> None:
        strings = {"source": self.source, "target": self.target}
        lines = [f"{key} = {json.dumps(value)}" for key, value in strings.items()]
        if self._transfer:
            lines.append(f"transfer = [{json.dumps(self._transfer)}]")
        with open(self.configuration, "w") as file:
            file.write("[job.bench]\n" + "\n".join(lines) + "\n")

    def commands(self) -> Sequence[Sequence[str]]:
        return [(lb_program(), "-c", self.configuration, "run", "bench", "--json")]

    @staticmethod
    def summary(sample: Sample) -> dict[str, Any]:
        """What ``lb run --json`` said of its one job."""
        try:
            (job,) = json.loads(sample.output)["jobs"]
        except (ValueError, KeyError, TypeError) as exc:
            raise BenchError(f"lb run --json printed something unexpected: {sample.output[:500]!r}") from exc
        return dict(job)

    def expect(self, sample: Sample, **counts: int) -> None:
        """What the run counted is what was done to the source.

        :raises BenchError: when it is not.
        """
        summary = self.summary(sample)
        for key, value in counts.items():
            if summary.get(key) != value:
                raise BenchError(f"{self.label} says {key} = {summary.get(key)!r}, not {value}: {summary}")

    def check(self) -> None:
        """The mirror equals the source, as rsync sees it.

        :raises BenchError: when it does not.
        """
        argv = ("rsync", "-aHn", "--delete", "--itemize-changes", f"{self.source}/", f"{self.target}/tree/")
        found = run(argv, environment={**self.environment, "LC_ALL": "C"}).output
        if found:
            raise BenchError(f"the mirror of {self.label} differs from the source:\n{found[:2000]}")


class Rsync(Peer):
    """``rsync -a --delete``: a mirror without history, and without waiting for the disk."""

    name = "rsync"
    version_command = ("rsync", "--version")

    def commands(self) -> Sequence[Sequence[str]]:
        return [("rsync", "-a", "--delete", f"{self.source}/", f"{self.target}/")]


class DurableRsync(Peer):
    """``rsync -a``, then ``sync``: what it writes is on disk when it ends."""

    name = "rsync + sync"
    version_command = ("rsync", "--version")

    def commands(self) -> Sequence[Sequence[str]]:
        return [("rsync", "-a", f"{self.source}/", f"{self.target}/"), ("sync",)]


class Restic(Peer):
    """``restic backup`` into a local repository, with its defaults."""

    name = "restic"
    version_command = ("restic", "version")

    def prepare(self) -> None:
        self.environment |= {
            "RESTIC_REPOSITORY": self.target,
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": os.path.join(self.scratch, "cache"),
        }
        run(("restic", "init", "--quiet"), environment=self.environment)

    def commands(self) -> Sequence[Sequence[str]]:
        return [("restic", "backup", "--quiet", self.source)]


class Borg(Peer):
    """``borg create`` into a local repository, not encrypted, otherwise with its defaults."""

    name = "borg"
    version_command = ("borg", "--version")

    def prepare(self) -> None:
        self.environment |= {"BORG_BASE_DIR": os.path.join(self.scratch, "base")}
        os.makedirs(self.environment["BORG_BASE_DIR"])
        run(("borg", "init", "--encryption=none", self.target), environment=self.environment)

    def commands(self) -> Sequence[Sequence[str]]:
        return [("borg", "create", f"{self.target}::{self._turn}", self.source)]
