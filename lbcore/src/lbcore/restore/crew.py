"""Files written by several threads at once; what came of each is learned by the thread that asked, in its order."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple

from lbcore.attributes import Wish
from lbcore.beneath import Root
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import Row
from lbcore.held import Held
from lbcore.keeping import Keeping
from lbcore.restore.writer import Writer

_AHEAD = 4
"""Files that wait for each thread."""


class Written(NamedTuple):
    """A file that is there now."""

    size_bytes: int | None
    """None when an earlier restore made it."""
    lost: list[tuple[bytes, str]]
    """What could not be made anew, with the path."""


class Crew:
    """Threads, each with a writer of its own. Directories are made before files in them are given to it."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = writers
        self._idle: SimpleQueue[Writer] = SimpleQueue()
        for writer in writers:
            self._idle.put(writer)
        self._pool = ThreadPoolExecutor(len(writers), thread_name_prefix="lb-restore")
        self._pending: deque[tuple[bytes, Future[Written]]] = deque()

    def close(self) -> None:
        """Wait for what is being written; what only waits is dropped."""
        self._pool.shutdown(cancel_futures=True)

    @property
    def refused(self) -> list[dict[str, int]]:
        """How often attributes could not be set, by each writer."""
        return [writer.refused for writer in self._writers]

    def write(self, row: Row, wish: Wish, path: bytes) -> None:
        """Write a file some time. Take what ``done`` gives before the next: so few files wait."""
        self._pending.append((path, self._pool.submit(self._write, row, wish, path)))

    def done(self, *, everything: bool) -> Iterator[tuple[bytes, Future[Written]]]:
        """The paths that were given first, and what came of them; ``everything``: of all that were given."""
        while self._pending and (everything or len(self._pending) > _AHEAD * len(self._writers)):
            yield self._pending.popleft()

    def _write(self, row: Row, wish: Wish, path: bytes) -> Written:
        writer = self._idle.get()
        try:
            size = None if writer.is_made(row, path) else writer.file(row, wish, path)
            return Written(size, writer.take_lost())
        finally:
            self._idle.put(writer)


@contextlib.contextmanager
def open_crew(
    target: bytes, catalog: bytes, destination: Root, keeping: Keeping, workers: int, *, overwrite: bool, resume: bool
) -> Iterator[Crew | None]:
    """A crew of ``workers`` threads; None for an ordinary user.

    Where even the owner may not read a file of the mirror, its mode is changed while it is opened: not by two threads.

    :param catalog: path of the job's database.
    """
    if workers < 2 or os.geteuid() != 0:
        yield None
        return
    with contextlib.ExitStack() as stack:
        writers = []
        for _ in range(workers):
            one = stack.enter_context(contextlib.closing(Catalog.open(catalog, read_only=True)))
            held = stack.enter_context(contextlib.closing(Held(target, one)))
            root = stack.enter_context(Root(b"/proc/self/fd/%d" % destination.fd))
            writers.append(Writer(root, held, keeping, overwrite=overwrite, resume=resume))
        yield stack.enter_context(contextlib.closing(Crew(writers)))
