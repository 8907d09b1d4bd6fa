"""Where a Lustre filesystem is mounted, and what it is called."""

from __future__ import annotations

import os

from lb_lustre.errors import LustreError


def find_mount(path: bytes) -> bytes:
    """The top of the Lustre filesystem that a path is on: where ``.lustre`` is.

    :raises LustreError: when it is on none.
    """
    at = os.path.realpath(path)
    while not os.path.isdir(at + b"/.lustre/fid"):
        above = os.path.dirname(at)
        if above == at:
            raise LustreError(f"{os.fsdecode(path)} is on no Lustre filesystem")
        at = above
    return at


def find_filesystem(path: bytes) -> str:
    """The name of the Lustre filesystem that is mounted where a path lies: ``MGS:/NAME`` in /proc/self/mounts.

    :raises LustreError: when none is.
    """
    mount = find_mount(path)
    with open("/proc/self/mounts", "rb") as mounts:
        for line in mounts:
            device, at, kind = line.split()[:3]
            if kind == b"lustre" and at.replace(b"\\040", b" ") == mount:
                return os.fsdecode(device.rpartition(b":/")[2].partition(b"/")[0])
    raise LustreError(
        f"{os.fsdecode(mount)} is not mounted as Lustre on this node; name the filesystem in 'changelog.filesystem'"
    )
