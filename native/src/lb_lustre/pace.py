"""How many operations a second are asked of each metadata server: a limit that may be changed while it holds."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from lb_lustre.errors import LustreError
from lbcore.model import ObjectId

_log = logging.getLogger(__name__)

_READ_AGAIN_SECONDS = 5.0


def at_once(object_id: ObjectId, operations: int) -> None:
    """A ``Pacing`` (see ``lbcore.plugins.types``) without a limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """``max_metadata_ops``: operations per second and metadata server, or the absolute path of a file that says so."""

    value: int | str

    def __post_init__(self) -> None:
        if not (os.path.isabs(self.value) if isinstance(self.value, str) else self.value > 0):
            raise ValueError(f"max_metadata_ops is a number above 0 or the absolute path of a file, not {self.value!r}")

    def read(self) -> int:
        """The number now.

        :raises LustreError: when the file cannot be read, or holds no number above 0.
        """
        if isinstance(self.value, int):
            return self.value
        try:
            with open(self.value, encoding="utf-8") as file:
                number = int(file.read())
        except (OSError, ValueError) as error:
            raise LustreError(f"max_metadata_ops: {self.value} cannot be read as a number: {error}") from error
        if number <= 0:
            raise LustreError(f"max_metadata_ops: {self.value} holds {number}, which is no number above 0")
        return number


class Pace:
    """Holds up whoever asks too much of a server. For several threads at once.

    A bucket of tokens for each server: it fills at the rate of the limit, up to what it is in a second.
    """

    def __init__(
        self,
        limit: Limit,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        :raises LustreError: when the limit cannot be read.
        """
        self._limit = limit
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._rate = limit.read()
        self._read_at = clock()
        self._buckets: dict[int, tuple[float, float]] = {}
        """By server: tokens, which others already wait for where they are negative; and when that was."""

    def wait(self, server: int, operations: int) -> None:
        """Return when so many operations may be asked of a server."""
        with self._lock:
            now = self._clock()
            self._read_again(now)
            tokens, then = self._buckets.get(server, (float(self._rate), now))
            tokens = min(tokens + (now - then) * self._rate, float(self._rate)) - operations
            self._buckets[server] = tokens, now
            pause = -tokens / self._rate
        if pause > 0:
            self._sleep(pause)

    def _read_again(self, now: float) -> None:
        if now - self._read_at < _READ_AGAIN_SECONDS:
            return
        self._read_at = now
        try:
            self._rate = self._limit.read()
        except LustreError as error:
            _log.warning("the limit stays %d: %s", self._rate, error)
