"""Changelogs by liblustreapi: for a node where the devices are not there, or not for us."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator

from lb_lustre._lustreapi import ChangelogReader, Library
from lb_lustre.errors import LustreError, LustreUnavailableError
from lb_lustre.feed import Feed

_LFS_SECONDS = 60
_SERVER = re.compile(r"(\d+): (.+)-(MDT[0-9a-f]{4})_UUID (ACTIVE|INACTIVE)\Z")


class LibraryFeed(Feed):
    """One metadata server's changelog, by liblustreapi."""

    def __init__(self, library: Library, filesystem: str, mdt: str) -> None:
        super().__init__(mdt, f"{filesystem}-{mdt} by {library.path}")
        self._library = library
        self._name = f"{filesystem}-{mdt}"

    @contextlib.contextmanager
    def reading(self, start: int) -> Iterator[Callable[[], bytes]]:
        """See ``Feed``."""
        try:
            reader = ChangelogReader(self._library, self._name, start)
        except OSError as error:
            raise self._error(error, "cannot be opened") from error
        with reader:
            yield reader.read

    def _clear(self, user: str, index: int) -> None:
        self._library.clear(self._name, user, index)


def find_by_library(filesystem: str, mount: bytes) -> list[LibraryFeed]:
    """The changelogs of all metadata servers of the filesystem that is mounted at a path, in order.

    :raises LustreUnavailableError: when the library, or ``lfs``, is not on this node.
    :raises LustreError: when ``lfs`` does not say what can be understood.
    """
    library = Library()
    return [LibraryFeed(library, filesystem, mdt) for mdt in find_servers(filesystem, mount)]


def find_servers(filesystem: str, mount: bytes) -> list[str]:
    """The names of all metadata servers, such as ``MDT0000``, those included that are not connected: ``lfs mdts``.

    :raises LustreUnavailableError: when ``lfs`` is not on this node.
    :raises LustreError: when it fails, or says anything that is not understood: no server is left out.
    """
    command = ["lfs", "mdts", os.fsdecode(mount)]
    shown = f"'{' '.join(command)}'"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LFS_SECONDS, check=False)
    except FileNotFoundError as error:
        raise LustreUnavailableError("lfs is not on this node: install the Lustre client's package") from error
    except subprocess.TimeoutExpired as error:
        raise LustreError(f"{shown} did not answer within {_LFS_SECONDS} seconds") from error
    title, *lines = done.stdout.splitlines() or [""]
    found = [_SERVER.match(line) for line in lines]
    servers = [match[3] for match in found if match is not None and match[2] == filesystem]
    if done.returncode or title != "MDTS:" or not servers or len(servers) < len(found):
        said = (done.stderr or done.stdout).strip()
        raise LustreError(f"{shown} does not list the metadata servers of '{filesystem}': {said or 'it says nothing'}")
    return sorted(servers)
