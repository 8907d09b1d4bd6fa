"""The snapshots of a simulated Lustre: half of what ``lctl snapshot_*`` does; ``lctl.py`` has its words."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from dataclasses import dataclass, field
from typing import Any

from lb_lustre.simulator.filesystem import Filesystem
from lb_lustre.simulator.objects import fail


@dataclass(slots=True)
class _Snapshot:
    frozen: Filesystem
    created: float = field(default_factory=time.time)
    mounted: bool = False


class Snapshots:
    """All snapshots of one filesystem. What is mounted is there for clients, under a name of its own."""

    def __init__(self, filesystems: dict[str, Filesystem], live: str, contents: bytes) -> None:
        """
        :param filesystems: what clients see, by name.
        :param contents: a folder for the content of files.
        """
        self._filesystems = filesystems
        self._live = live
        self._contents = contents
        self._snapshots: dict[str, _Snapshot] = {}

    def create(self, name: str) -> None:
        """The filesystem as the servers have it now.

        :raises OSError: EEXIST.
        """
        if name in self._snapshots:
            raise fail(errno.EEXIST)
        filesystem = secrets.token_hex(4)
        contents = os.path.join(self._contents, os.fsencode(filesystem))
        self._snapshots[name] = _Snapshot(self._filesystems[self._live].snapshot(filesystem, contents))

    def list(self) -> list[dict[str, Any]]:
        """Newest first."""
        return [
            {"name": name, "filesystem": one.frozen.name, "created": one.created, "mounted": one.mounted}
            for name, one in reversed(self._snapshots.items())
        ]

    def mount(self, name: str) -> str:
        """On the servers; the name that clients mount.

        :raises OSError: EINVAL for an unknown one, EALREADY.
        """
        one = self._known(name, errno.EINVAL)
        if one.mounted:
            raise fail(errno.EALREADY)
        one.mounted = True
        self._filesystems[one.frozen.name] = one.frozen
        return one.frozen.name

    def umount(self, name: str) -> None:
        """
        :raises OSError: EINVAL for an unknown one, EALREADY when it is not mounted.
        """
        one = self._known(name, errno.EINVAL)
        if not one.mounted:
            raise fail(errno.EALREADY)
        one.mounted = False
        del self._filesystems[one.frozen.name]

    def destroy(self, name: str) -> None:
        """
        :raises OSError: ENOENT for an unknown one, EPERM for a mounted one.
        """
        one = self._known(name, errno.ENOENT)
        if one.mounted:
            raise fail(errno.EPERM)
        shutil.rmtree(one.frozen.contents)
        del self._snapshots[name]

    def _known(self, name: str, otherwise: int) -> _Snapshot:
        if name not in self._snapshots:
            raise fail(otherwise)
        return self._snapshots[name]
