"""Feeding and reading a process at once."""

from __future__ import annotations

import os
import time

import pytest

from lb_rsync.process import Rsync
from lbcore.errors import UsageError


def run(*arguments: bytes, names: list[bytes] | None = None) -> tuple[int, list[bytes], list[bytes]]:
    output, errors = [], []
    with Rsync(arguments, os.environb, names or []) as process:
        while (lines := process.read(0.05)) is not None:
            output += lines.output
            errors += lines.errors
        return process.finish(), output, errors


def test_names_reach_the_program_and_lines_come_back_however_many() -> None:
    names = [b"%d " % number + b"x" * 100 for number in range(100_000)]
    assert run(b"tr", b"\\0", b"\\n", names=names) == (0, names, [])


def test_output_and_errors_are_told_apart_and_a_last_line_may_lack_its_end() -> None:
    script = b"printf 'a\\nb'; printf 'c\\nd\\n' >&2; exit 3"
    assert run(b"sh", b"-c", script) == (3, [b"a", b"b"], [b"c", b"d"])


def test_a_program_that_does_not_read_its_names_is_no_error() -> None:
    status, _, errors = run(b"sh", b"-c", b"exec <&-; echo over >&2", names=[b"x" * 1000] * 10_000)
    assert (status, errors) == (0, [b"over"])


def test_new_files_of_the_program_are_private() -> None:
    assert run(b"sh", b"-c", b"umask") == (0, [b"0077"], [])


def test_read_returns_in_time_when_nothing_comes() -> None:
    began = time.monotonic()
    with Rsync([b"sleep", b"60"], os.environb, []) as process:
        lines = process.read(0.05)
        assert lines is not None
        assert (lines.output, lines.errors) == ([], [])
    assert time.monotonic() - began < 5


def test_what_the_program_left_running_is_killed_at_its_end() -> None:
    status, output, _ = run(b"sh", b"-c", b"sleep 60 >/dev/null 2>&1 <&- & echo $$; exit 0")
    assert status == 0
    for _ in range(100):
        try:
            os.killpg(int(output[0]), 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)  # between two looks
    pytest.fail("it is still there")


def test_a_program_that_may_not_be_run_is_an_error_that_names_it() -> None:
    with pytest.raises(UsageError, match="cannot start '/etc': Permission denied"):
        run(b"/etc")
