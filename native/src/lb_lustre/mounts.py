"""What is mounted on this node: /proc/self/mounts, which asks no server anything (a dead mount hangs whoever does)."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from lb_lustre.errors import LustreError

_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mounted(NamedTuple):
    """One line of /proc/self/mounts."""

    device: bytes
    """Of a Lustre: ``MGSNID:/NAME``, perhaps with a subdirectory behind it."""
    at: bytes
    kind: bytes


def mounts() -> list[Mounted]:
    """Everything that is mounted, later mounts behind earlier ones."""
    with open("/proc/self/mounts", "rb") as lines:
        return [Mounted._make(_plain(field) for field in line.split()[:3]) for line in lines]


def _plain(field: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field)


def is_mounted(path: bytes) -> bool:
    """Whether something is mounted right there; ``path`` has no symbolic links in it."""
    return any(one.at == path for one in mounts())


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


def find_device(path: bytes) -> tuple[str, str]:
    """The servers' address and the name of the Lustre filesystem that a path is on, as in ``MGSNID:/NAME``.

    :raises LustreError: when it is on none.
    """
    mount = find_mount(path)
    for device, at, kind in reversed(mounts()):
        if kind == b"lustre" and at == mount:
            address, _, name = os.fsdecode(device).rpartition(":/")
            return address, name.partition("/")[0]
    raise LustreError(
        f"{os.fsdecode(mount)} is not mounted as Lustre on this node; name the filesystem in the option 'filesystem'"
    )
