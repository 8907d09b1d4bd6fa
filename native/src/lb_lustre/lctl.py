"""Run ``lctl`` here, or behind words such as ``ssh mgs``; and other programs. No shell on this node sees a word."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from lb_lustre.errors import LustreError

_SAFE = re.compile(r"[A-Za-z0-9._:,=@+*/-]+")
"""What a word may consist of that a remote shell could see: ssh joins its words, and that shell splits them again."""

_KILL_SECONDS = 10.0
"""A process that waits for a hanging filesystem cannot be killed; after this long it is left to itself."""


class Answer(NamedTuple):
    """How a command ended."""

    status: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """What it said of an error: its last words."""
        said = (self.errors.strip() or self.output.strip()).splitlines()
        return said[-1].strip() if said else f"status {self.status}"


def run(command: Sequence[str], *, timeout_seconds: float) -> Answer:
    """Run a program to its end.

    :raises LustreError: when it cannot be started, or does not end in time; it is killed then.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,  # a group of its own, which is killed together
        )
    except OSError as error:
        raise LustreError(f"'{command[0]}' cannot be run: {error.strerror}") from error
    try:
        output, errors = process.communicate(timeout=timeout_seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_KILL_SECONDS)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise LustreError(f"'{' '.join(command)}' did not end within {timeout_seconds:g} s") from error
    return Answer(process.returncode, os.fsdecode(output), os.fsdecode(errors))


class Lctl:
    """``lctl`` on one node."""

    def __init__(self, prefix: Sequence[str], *, timeout_seconds: float) -> None:
        """
        :param prefix: what goes before ``lctl``, such as ``("ssh", "mgs")``; nothing for this node.
        """
        self._prefix = tuple(prefix)
        self._timeout_seconds = timeout_seconds

    def __str__(self) -> str:
        """The command, for messages."""
        return shlex.join([*self._prefix, "lctl"])

    def run(self, *words: str) -> Answer:
        """``lctl WORD…``; a status other than 0 is the caller's business.

        :raises LustreError: when it cannot be run, or does not end in time.
        :raises ValueError: for a word that a shell on the other node could take for more than a word.
        """
        for word in words:
            if not _SAFE.fullmatch(word):
                raise ValueError(f"{word!r} is no word for lctl")
        return run([*self._prefix, "lctl", *words], timeout_seconds=self._timeout_seconds)
