"""Before a snapshot: make clients send what they have cached of files that were written to.

The barrier of a snapshot stops the metadata servers, not the clients: a file closed seconds before may be empty in
it, and no record tells later. Asking for its data version with ``LL_DV_RD_FLUSH``, from any client, makes the writer
send its pages (section 9, items 1 and 6). A file that HSM released is not recalled by that (lov_io.c of Lustre,
lov_io_init_released: CIT_DATA_VERSION).
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import islice

from lb_lustre import fid
from lb_lustre._lustreapi import Library
from lb_lustre.errors import LustreError, LustreUnavailableError
from lb_lustre.pace import at_once
from lbcore.model import ObjectId
from lbcore.plugins.types import Pacing

_log = logging.getLogger(__name__)

_TOGETHER = 64
"""So many for each thread are handed out at once."""
_OPERATIONS = 3
"""What a flush asks of the metadata server: attributes, opening, closing."""


class Flushing:
    """Flushes files of one mounted filesystem, by FID. For several threads at once."""

    def __init__(self, mount: bytes, pacing: Pacing = at_once) -> None:
        self._pacing = pacing
        self._by_fid = mount + b"/.lustre/fid/"

    def flush(
        self, ids: Iterable[ObjectId], *, threads: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> dict[str, int]:
        """Flush files until the time is up; what a server does not answer by then is left to itself.

        :returns: how many were ``flushed``, were ``gone``, ``failed`` or were ``left``. What is no file counts nowhere.
        """
        counts = Counter(dict.fromkeys(("flushed", "gone", "failed", "left"), 0))
        until = clock() + seconds
        waiting = iter(ids)
        try:
            library = Library()
        except LustreUnavailableError as error:
            _log.warning("nothing is flushed before the snapshot: %s", error)
            return {**counts, "failed": sum(1 for _ in waiting)}
        pool = ThreadPoolExecutor(threads, thread_name_prefix="lb-flush")
        try:
            while together := list(islice(waiting, _TOGETHER * threads)):
                if clock() >= until:
                    counts["left"] += len(together)
                    continue
                begun = [pool.submit(self._flush_one, library, one) for one in together]
                done, left = wait(begun, timeout=max(until - clock(), 0))
                counts.update(future.result() for future in done)
                counts["left"] += len(left)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        counts.pop("nothing", None)
        return dict(counts)

    def _flush_one(self, library: Library, object_id: ObjectId) -> str:
        """What became of one object; nothing of it stops the others."""
        path = self._by_fid + fid.text(object_id).encode()
        try:
            self._pacing(object_id, _OPERATIONS)
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return "nothing"  # and a device is not opened
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_NOFOLLOW)
            try:
                library.data_version(fd, True)
            finally:
                os.close(fd)
        except (OSError, LustreError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ESTALE):
                return "gone"
            _log.info("%s could not be flushed before the snapshot: %s", fid.text(object_id), error)
            return "failed"
        return "flushed"
