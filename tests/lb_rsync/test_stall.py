"""Noticing that nothing moves."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

from lb_rsync.stall import Stall

NOBODY = 65534


def reached_within(stall: Stall, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if stall.reached():
            return True
        time.sleep(0.1)  # between two looks
    return False


def with_process(script: str, check: Callable[[int], bool]) -> bool:
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.DEVNULL) as process:
        try:
            return check(process.pid)
        finally:
            process.kill()


def test_a_process_that_only_sleeps_has_stalled() -> None:
    assert with_process("exec sleep 60", lambda pid: reached_within(Stall(pid, 1), 5))


def test_a_process_whose_child_moves_data_has_not_stalled() -> None:
    script = "(for i in 1 2 3 4 5 6 7 8 9; do echo; sleep 0.4; done)"
    assert not with_process(script, lambda pid: reached_within(Stall(pid, 1), 3))


def test_zero_seconds_mean_never() -> None:
    assert not with_process("exec sleep 60", lambda pid: reached_within(Stall(pid, 0), 2))


def test_a_process_that_may_not_be_looked_at_is_not_called_stalled() -> None:
    assert as_nobody(lambda: not reached_within(Stall(1, 1), 3))


def test_a_dead_process_that_was_not_waited_for_counts_as_still() -> None:
    def check() -> bool:
        child = os.fork()
        if child == 0:
            os._exit(0)
        try:
            return reached_within(Stall(child, 1), 5)
        finally:
            os.waitpid(child, 0)

    assert as_nobody(check)


def as_nobody(check: Callable[[], bool]) -> bool:
    """The answer that an ordinary user gets."""
    child = os.fork()
    if child == 0:
        answer = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            answer = 0 if check() else 1
        finally:
            os._exit(answer)
    return os.waitpid(child, 0)[1] == 0
