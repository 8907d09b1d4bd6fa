"""Run a program and say how long it took and how much memory it needed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

SAMPLE_SECONDS = 0.1


class BenchError(Exception):
    """A benchmark could not be carried out."""


class NotMeasured(BenchError):  # noqa: N818 - a statement, not a fault
    """A benchmark was left out; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One run of one or more programs, one after the other."""

    seconds: float
    cpu_seconds: float
    """User and system time of the program and all it waited for."""
    peak_bytes: int
    """Largest resident set of any one process.

    The kernel counts what the process was before ``exec``: never less than the resident set of this one.
    """
    tree_peak_bytes: int
    """Largest sum over the program and its descendants, shared pages counted once; 0 when not sampled."""
    output: str
    """What the last program printed."""


def run(*commands: Sequence[str], environment: Mapping[str, str], sample_memory: bool = False) -> Sample:
    """Run the commands, one after the other, and measure them as one.

    :raises BenchError: when one fails; the message has the end of what it wrote to stderr.
    """
    os.sync()  # what an earlier command left unwritten is not for this one to wait for
    seconds, cpu, peak, tree_peak, output = 0.0, 0.0, 0, 0, ""
    for argv in commands:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            started = time.perf_counter()
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=dict(environment))
            sampler = _Sampler(process.pid) if sample_memory else None
            _, status, usage = os.wait4(process.pid, 0)
            seconds += time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if sampler:
                tree_peak = max(tree_peak, sampler.finish())
            out.seek(0)
            output = out.read().decode("utf-8", "replace")
            if process.returncode:
                err.seek(0)
                tail = err.read().decode("utf-8", "replace")[-2000:]
                raise BenchError(f"{' '.join(argv)} ended with status {process.returncode}:\n{tail}{output[-2000:]}")
        cpu += usage.ru_utime + usage.ru_stime
        peak = max(peak, usage.ru_maxrss * 1024)
    return Sample(seconds=seconds, cpu_seconds=cpu, peak_bytes=peak, tree_peak_bytes=tree_peak, output=output)


class _Sampler:
    """Looks at the memory of a process and its descendants until told to stop."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def finish(self) -> int:
        """The largest sum seen, in bytes."""
        self._stop.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, sum(_shared_out_bytes(pid) for pid in _family(self._pid)))


def _family(pid: int) -> list[int]:
    family = [pid]
    for member in family:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{member}/task"):
                with open(f"/proc/{member}/task/{task}/children") as children:
                    family.extend(int(child) for child in children.read().split())
    return family


def _shared_out_bytes(pid: int) -> int:
    """Proportional set size: pages that several processes share are divided among them."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as smaps:
        for line in smaps:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def middle(samples: Sequence[Sample]) -> float:
    """Median of the wall times."""
    return median(sample.seconds for sample in samples)


def spread(samples: Sequence[Sample]) -> str:
    """Fastest and slowest, for the table."""
    times = [sample.seconds for sample in samples]
    return f"{min(times):.2f} to {max(times):.2f}"


def middle_cpu(samples: Sequence[Sample]) -> float:
    """Median of the processor times."""
    return median(sample.cpu_seconds for sample in samples)
