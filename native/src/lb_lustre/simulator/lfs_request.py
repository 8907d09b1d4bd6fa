"""How a command of the simulated ``lfs`` opens what it is about, and asks the simulator."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from lb_lustre.simulator.client import ask


@contextlib.contextmanager
def opened(path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A file or directory that is open as long as the context lasts."""
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def simulator(path: str) -> tuple[Callable[..., Any], str]:
    """Who is asked about a path, and what it is called there."""
    head, name = os.path.split(os.path.abspath(path))
    folder, _, rest = os.path.realpath(head).partition("/mount/fs/")

    def request(word: str, **arguments: Any) -> Any:
        os.stat(head)  # a close(2) is told to the simulator later, but before what follows it there
        return ask(f"{folder}/control", word, **arguments)

    return request, os.path.join(rest.partition("/")[2], name)
