"""Which metadata server has which object."""

from __future__ import annotations

import os

from lb_lustre import fid
from lb_lustre._lustreapi import Library
from lb_lustre.errors import LustreError
from lbcore.model import ObjectId

SEQUENCE_BYTES = 8


class Servers:
    """The metadata servers of one mounted filesystem. For several threads at once."""

    def __init__(self, mount: bytes) -> None:
        self._mount = mount
        self._library: Library | None = None
        self._by_sequence: dict[bytes, int] = {}

    def of(self, object_id: ObjectId) -> int:
        """The number of the server that has an object, or had it. All objects of a sequence are on one server.

        :raises LustreUnavailableError: when liblustreapi, which knows it, is not on this node.
        :raises LustreError: when no server says that it is its.
        """
        sequence = object_id[:SEQUENCE_BYTES]
        found = self._by_sequence.get(sequence)
        if found is None:
            found = self._by_sequence[sequence] = self._ask(object_id)
        return found

    def _ask(self, object_id: ObjectId) -> int:
        if self._library is None:
            self._library = Library()
        mount = os.open(self._mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return self._library.mdt_index(mount, object_id)
        except OSError as error:
            raise LustreError(f"no metadata server is known for {fid.text(object_id)}: {error.strerror}") from error
        finally:
            os.close(mount)


def name(server: int) -> str:
    """Such as ``MDT0000``."""
    return f"MDT{server:04x}"
