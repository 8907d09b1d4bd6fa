"""Copy the content of an open file to another, holes and all, with the digest of what went over."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import xxhash

_BLOCK_BYTES = 1 << 20
_ZEROS = bytes(_BLOCK_BYTES)


class ReadError(Exception):
    """Reading failed: that concerns one file of the backup, while a failure to write concerns the destination."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror)
        self.cause = cause


def copy_content(incoming: int, outgoing: int | None) -> tuple[int, bytes]:
    """Copy all of ``incoming`` to the empty file ``outgoing``; returns its size and xxh3-128 digest.

    :param outgoing: None: only read.
    :raises ReadError: when ``incoming`` cannot be read.
    :raises OSError: when ``outgoing`` cannot be written.
    """
    status = os.fstat(incoming)
    whole = status.st_blocks * 512 >= status.st_size
    state = xxhash.xxh3_128()
    done = 0
    for start, end in [(0, status.st_size)] if whole else _data(incoming, status.st_size):
        _add_zeros(state, start - done)
        done = start
        while done < end:
            block = _read(incoming, min(_BLOCK_BYTES, end - done), done)
            if not block:
                break  # it became shorter, which the digest tells
            state.update(block)
            if outgoing is not None:
                _write(outgoing, block, done)
            done += len(block)
    if done < status.st_size:
        _add_zeros(state, status.st_size - done)
        if outgoing is not None:
            os.ftruncate(outgoing, status.st_size)
    return status.st_size, state.digest()


def digest_of(fd: int) -> bytes:
    """The xxh3-128 digest of an open file's content, 16 bytes. Holes count as zeros.

    :raises OSError: when it cannot be read.
    """
    try:
        return copy_content(fd, None)[1]
    except ReadError as error:
        raise error.cause from error


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes (lseek(2), SEEK_DATA and SEEK_HOLE)."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = min(size, os.lseek(fd, start, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole
                return
            raise ReadError(error) from error
        if start < size:
            yield start, at


def _add_zeros(state: xxhash.xxh3_128, count: int) -> None:
    while count > 0:
        state.update(_ZEROS[: min(count, _BLOCK_BYTES)])
        count -= _BLOCK_BYTES


def _read(fd: int, size: int, at: int) -> bytes:
    try:
        return os.pread(fd, size, at)
    except OSError as error:
        raise ReadError(error) from error


def _write(fd: int, block: bytes, at: int) -> None:
    view = memoryview(block)
    while view:
        written = os.pwrite(fd, view, at)
        view = view[written:]
        at += written
