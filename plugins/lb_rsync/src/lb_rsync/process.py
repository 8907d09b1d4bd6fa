"""Runs one rsync: feeds it names, reads both its outputs, and leaves no process behind."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from lbcore.errors import UsageError

_BLOCK_BYTES = 65536
_KILL_SECONDS = 10.0
"""A process that waits for a hanging filesystem cannot be killed; after this long it is left to itself."""
_GATHER_SECONDS = 0.005
"""rsync writes each line by itself; so much later a pipe holds many, which cost one read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """What rsync printed since the last call, without line ends."""

    output: list[bytes]
    errors: list[bytes]


class Rsync:
    """A running rsync, to be used in ``with``: leaving it kills what still runs."""

    def __init__(self, arguments: Sequence[bytes], environment: Mapping[bytes, bytes], names: Iterable[bytes]) -> None:
        """Start it; ``names`` go to its standard input, each ended by a zero byte.

        :raises UsageError: when there is no such program, or it cannot be started.
        """
        program = os.fsdecode(arguments[0])
        try:
            self._process = subprocess.Popen(
                arguments,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                umask=0o077,
                # A group of its own: rsync is three processes, which are killed together.
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise UsageError(
                f"cannot start {program!r}: {error.strerror}; install rsync (apt install rsync), "
                "or set 'program' in the job's section 'rsync'"
            ) from error
        self._feed = _blocks(names)
        self._unsent = memoryview(b"")
        self._partial = {"output": b"", "errors": b""}
        self._selector = selectors.DefaultSelector()
        assert self._process.stdin and self._process.stdout and self._process.stderr
        os.set_blocking(self._process.stdin.fileno(), False)
        self._selector.register(self._process.stdin, selectors.EVENT_WRITE, "names")
        self._selector.register(self._process.stdout, selectors.EVENT_READ, "output")
        self._selector.register(self._process.stderr, selectors.EVENT_READ, "errors")

    def __enter__(self) -> Rsync:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream
            stream.close()
        self._selector.close()

    def read(self, seconds: float) -> Lines | None:
        """The lines that came within about ``seconds``, perhaps none; None when both outputs have ended."""
        if not any(key.data != "names" for key in self._selector.get_map().values()):
            return None
        lines = Lines(output=[], errors=[])
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                if key.data == "names":
                    self._write(key.fd)
                else:
                    time.sleep(_GATHER_SECONDS)
                    self._take(key.fd, key.data, getattr(lines, key.data))
            if not self._selector.get_map():
                break
        return lines

    def _take(self, fd: int, which: str, lines: list[bytes]) -> None:
        block = os.read(fd, _BLOCK_BYTES)
        if not block:
            self._selector.unregister(fd)
        *complete, rest = (self._partial[which] + block).split(b"\n")
        if not block and rest:
            complete, rest = [rest], b""
        lines += complete
        self._partial[which] = rest

    def _write(self, fd: int) -> None:
        try:
            if not self._unsent:
                self._unsent = memoryview(next(self._feed))
            self._unsent = self._unsent[os.write(fd, self._unsent) :]
        except (StopIteration, BrokenPipeError):
            # All is said, or rsync has ended early: its status says why.
            self._selector.unregister(fd)
            assert self._process.stdin
            self._process.stdin.close()

    @property
    def pid(self) -> int:
        """The number of the process, and of its group."""
        return self._process.pid

    def finish(self) -> int:
        """Wait for the end; the exit status, or the negative number of the signal that killed it."""
        # Not reaped yet, so that its number still names its group: no helper process may outlive it.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self._stop()
        return self._process.returncode

    def _stop(self) -> None:
        if self._process.returncode is not None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_KILL_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            self._process.poll()


def _blocks(names: Iterable[bytes]) -> Iterator[bytes]:
    """``names``, each with its zero byte, in blocks of a useful size."""
    block = bytearray()
    for name in names:
        block += name + b"\0"
        if len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
