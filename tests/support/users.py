"""Run a part of a test as an ordinary user, whoever runs the tests."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

NOBODY = 65534
T = TypeVar("T")


def as_ordinary_user(function: Callable[[], T]) -> T:
    """What ``function`` returns, when an ordinary user calls it: in a process of its own, unless this is one."""
    if os.geteuid() != 0:
        return function()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            result: tuple[bool, object]
            try:
                result = (True, function())
            except BaseException:
                result = (False, traceback.format_exc())
            with open(writing, "wb") as file:
                pickle.dump(result, file)  # from this test's own child to itself: nobody else writes there
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    well, value = pickle.loads(data)
    if not well:
        pytest.fail(value)
    return value  # type: ignore[no-any-return]


def ordinary_folder() -> Iterator[bytes]:
    """An empty folder of an ordinary user's; to be used as a fixture."""
    folder = os.fsencode(tempfile.mkdtemp(prefix="lb-test-"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    try:
        yield folder
    finally:
        for path, names, _ in os.walk(folder):
            for name in names:
                if not os.path.islink(os.path.join(path, name)):
                    os.chmod(os.path.join(path, name), 0o700)
        shutil.rmtree(folder)
