"""Executor ``local``: processes of this host."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from concurrent.futures import Executor, ProcessPoolExecutor

_PR_SET_PDEATHSIG = 1  # prctl(2)


def create(workers: int) -> Executor:
    """A pool of processes: threads would wait for each other at every system call on a small file.

    Their parent is a fork server, which ends with this process however it ends, and they with it: no worker of a
    killed run is left that could write into the stage.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lbcore.apply.shards", "lbcore.builtin.copy"])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)


def _begin() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C goes to the whole group; the run decides what becomes of the batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
