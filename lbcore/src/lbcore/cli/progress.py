"""Progress of a run: a bar with rate and remaining time on a terminal, plain lines otherwise."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from lbcore.progress import Progress

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 30.0
_WIDTH = 24


@contextlib.contextmanager
def make_progress(job: str, *, quiet: bool) -> Iterator[Progress]:
    """What a run of ``job`` reports to; on standard error, so that standard output can be piped."""
    if quiet:
        yield Progress()
        return
    watcher = _Bar(job) if sys.stderr.isatty() else _Lines(job)
    try:
        yield watcher
    finally:
        watcher.close()


class _Counting(Progress):
    """Counts, and shows the count from time to time."""

    interval_seconds = _LINE_SECONDS

    def __init__(self, job: str) -> None:
        self._job = job
        self._name = ""
        self._total: int | None = None
        self._steps = 0
        self._bytes = 0
        self._started = self._shown = time.monotonic()

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin to count anew."""
        self._name, self._total, self._steps, self._bytes = name, total, 0, 0
        self._started = time.monotonic()

    def advance(self, steps: int, size_bytes: int = 0) -> None:
        """Count, and show when it is time."""
        self._steps += steps
        self._bytes += size_bytes
        now = time.monotonic()
        if now - self._shown >= self.interval_seconds:
            self._shown = now
            self.show()

    def line(self) -> str:
        """One line of text: stage, steps, rate, remaining time."""
        seconds = max(time.monotonic() - self._started, 1e-6)
        rate = self._steps / seconds
        parts = [f"{self._job}: {self._name}", f"{self._steps}" + (f"/{self._total}" if self._total else "")]
        parts.append(f"{rate:.0f}/s")
        if self._bytes:
            parts.append(f"{self._bytes / seconds / 1e6:.1f} MB/s")
        if self._total and rate:
            parts.append(f"{duration(max(0, self._total - self._steps) / rate)} left")
        return "  ".join(parts)

    def show(self) -> None:
        """Print a line."""
        print(self.line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """The run is over."""


class _Lines(_Counting):
    """For logs and cron: a line now and then, none from a short run."""


class _Bar(_Counting):
    """For eyes: one line, drawn again and again."""

    interval_seconds = _REDRAW_SECONDS

    def show(self) -> None:
        """Draw over the line."""
        bar = ""
        if self._total:
            filled = min(_WIDTH, _WIDTH * self._steps // self._total)
            bar = f"[{'=' * filled}{' ' * (_WIDTH - filled)}] "
        print(f"\r\x1b[K{bar}{self.line()}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave an empty line."""
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """As people say it: ``45s``, ``12m``, ``3h20m``, ``2d4h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"
