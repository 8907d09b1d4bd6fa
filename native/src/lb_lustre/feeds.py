"""Which changelogs a filesystem has, and by what they are read."""

from __future__ import annotations

from collections.abc import Sequence

from lb_lustre.device import find_devices, has_devices
from lb_lustre.errors import LustreUnavailableError
from lb_lustre.feed import Feed
from lb_lustre.llapi import find_by_library
from lb_lustre.mounts import find_mount


def find_feeds(filesystem: str, path: bytes, *, devices: str, reader: str) -> Sequence[Feed]:
    """The changelogs of all metadata servers of a filesystem, in order.

    :param path: a path on the filesystem.
    :param devices: the folder of the devices.
    :param reader: one of ``options.READERS``; ``auto`` is the devices where they can be read, else the library.
    :raises LustreError: when they cannot be found.
    """
    if reader == "device" or (reader == "auto" and has_devices(devices, filesystem)):
        return find_devices(devices, filesystem)
    try:
        return find_by_library(filesystem, find_mount(path))
    except LustreUnavailableError as error:
        if reader == "library":
            raise
        raise LustreUnavailableError(
            f"{devices} has no changelog-{filesystem}-MDT* that can be read here (is the filesystem mounted on this "
            f"node, as a client?), and {error}"
        ) from error
