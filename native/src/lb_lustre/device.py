"""Changelogs by their character devices: whole records, many at a time.

Source of what a device does: section 2 of the reference (mdc_changelog.c).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from lb_lustre.errors import LustreError
from lb_lustre.feed import Feed

_READ_BYTES = 256 << 10
"""The device gives whole records only, and nothing at all where the first does not fit."""


class DeviceFeed(Feed):
    """One metadata server's changelog, by its device."""

    def __init__(self, device: str, mdt: str) -> None:
        super().__init__(mdt, device)
        self.device = device

    @contextlib.contextmanager
    def reading(self, start: int) -> Iterator[Callable[[], bytes]]:
        """See ``Feed``."""
        with self._opened(os.O_RDONLY, start) as fd:
            yield lambda: os.read(fd, _READ_BYTES)

    def _clear(self, user: str, index: int) -> None:
        with self._opened(os.O_WRONLY) as fd:
            os.write(fd, f"clear:{user}:{index}".encode())

    @contextlib.contextmanager
    def _opened(self, flags: int, start: int = 0) -> Iterator[int]:
        with contextlib.ExitStack() as opened:
            try:
                fd = os.open(self.device, flags)
                opened.callback(os.close, fd)
                if start > 1:
                    os.lseek(fd, start, os.SEEK_SET)  # the offset is an index
            except OSError as error:
                raise self._error(error, "cannot be opened") from error
            yield fd


def has_devices(folder: str, filesystem: str) -> bool:
    """Whether there are devices of a filesystem, and this process may read them all."""
    names = _names(folder, filesystem) if os.path.isdir(folder) else []
    return bool(names) and all(os.access(os.path.join(folder, name), os.R_OK) for name in names)


def find_devices(folder: str, filesystem: str) -> list[DeviceFeed]:
    """The changelogs of all metadata servers of a filesystem, in order.

    :raises LustreError: when there are none.
    """
    try:
        names = _names(folder, filesystem)
    except OSError as error:
        raise LustreError(f"{folder} cannot be listed: {error.strerror}") from error
    prefix = _prefix(filesystem)
    if not names:
        raise LustreError(
            f"{folder} has no {prefix}MDT* : is the filesystem '{filesystem}' mounted on this node, as a client?"
        )
    return [DeviceFeed(os.path.join(folder, name), name.removeprefix(prefix)) for name in names]


def _names(folder: str, filesystem: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith(_prefix(filesystem)))


def _prefix(filesystem: str) -> str:
    return f"changelog-{filesystem}-"
