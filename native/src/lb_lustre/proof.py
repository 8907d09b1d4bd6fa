"""That an object is gone is believed of a server that answers: before, and after it was looked at.

"No such file" is also what a client may say that has lost a server, or that sees a part of the filesystem only. So
the root of what is mounted must be the filesystem's, and another object of the same server must be found by its FID.
All FIDs of a sequence are on one server, so that is one of the same sequence: seen just now, or in the backup. Where
there is none it is the directory ``.lustre/lost+found/MDTxxxx``, which each server has once LFSCK was started there
(lfsck_verify_lpf in lfsck_lib.c of Lustre), or one of another sequence; liblustreapi tells which server has which.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from lb_lustre import fid
from lb_lustre.errors import LustreError
from lb_lustre.servers import SEQUENCE_BYTES, Servers, name
from lbcore import _posix
from lbcore.model import ObjectId, Observation, Seen
from lbcore.plugins.types import Known
from lbcore.source import look_at_root

_WITNESSES = 16
"""So many objects are tried: those seen before, or by an earlier run, may have been removed since."""


class Proof:
    """Of one view. Not for two threads at once."""

    def __init__(
        self, mount: bytes, servers: Servers, known: Known, look: Callable[[Sequence[ObjectId]], list[Seen]]
    ) -> None:
        """
        :param mount: the top of the filesystem.
        :param known: what is in the backup.
        :param look: what looks at objects.
        :raises LustreError: when it is the top of a part of it.
        """
        self._mount = mount
        self._look = look
        self._servers = servers
        self._known = known
        self._present: dict[bytes, ObjectId] = {}
        """An object that was there, by sequence."""
        self._answered: set[bytes] = set()
        """Sequences whose server was proved to answer before what is looked at next."""
        self._prove_root()

    def look(self, ids: Sequence[ObjectId]) -> list[Seen]:
        """Look at objects; none is gone whose server does not answer.

        :raises LustreError: naming a server that does not.
        """
        seen = self._look(ids)
        gone: dict[bytes, list[ObjectId]] = {}
        for one in seen:
            if isinstance(one, Observation) and one.attributes is not None:
                self._present[one.id[:SEQUENCE_BYTES]] = one.id
            elif isinstance(one, Observation) and one.id != fid.ROOT:
                gone.setdefault(one.id[:SEQUENCE_BYTES], []).append(one.id)
        if not gone:
            return seen
        self._prove(gone)
        unproved = [one for sequence in gone.keys() - self._answered for one in gone[sequence]]
        if unproved:
            again = dict(zip(unproved, self._look(unproved), strict=True))
            seen = [again.get(object_id, one) for object_id, one in zip(ids, seen, strict=True)]
            self._prove(gone)
        self._answered |= gone.keys()
        return seen

    def _prove(self, gone: Mapping[bytes, Sequence[ObjectId]]) -> None:
        self._prove_root()
        for sequence, ids in gone.items():
            witnesses = islice(self._witnesses(sequence, ids), _WITNESSES)
            if not any(map(self._is_there, witnesses)) and not self._answers(self._servers.of(ids[0])):
                self._refuse(self._servers.of(ids[0]))

    def _refuse(self, server: int) -> None:
        kept = f".lustre/lost+found/{name(server)}"
        raise LustreError(
            f"{name(server)} does not answer, as far as this node can tell: neither {kept} nor any object seen before "
            "is found by its FID, and others of it are said to be gone; nothing was changed. Is it connected "
            f"('lfs df')? Where LFSCK never ran there is no {kept}: 'lctl lfsck_start -A' on a server makes it, and "
            "'lb run --full' does without"
        )

    def _prove_root(self) -> None:
        if look_at_root(self._mount)[0] != fid.ROOT:
            raise LustreError(
                f"what is mounted at {os.fsdecode(self._mount)} is not the root of the filesystem (a fileset?): what "
                "lies outside of it would look as if it was gone; nothing was changed"
            )

    def _witnesses(self, sequence: bytes, gone: Sequence[ObjectId]) -> Iterator[ObjectId]:
        """Objects of the same server that should be there."""
        if sequence in self._present:
            yield self._present[sequence]
        absent = set(gone)
        for one in (gone[0], gone[-1]):
            for near in self._known.near(one, _WITNESSES):
                if near[:SEQUENCE_BYTES] == sequence and near not in absent:
                    yield near

    def _answers(self, server: int) -> bool:
        """Whether something else is there that a server must have."""
        if answers(self._mount, self._servers, server):
            return True
        of_server = (one for one in reversed(list(self._present.values())) if self._servers.of(one) == server)
        return any(map(self._is_there, islice(of_server, _WITNESSES)))

    def _is_there(self, object_id: ObjectId) -> bool:
        return _is_there(self._mount, object_id)


def answers(mount: bytes, servers: Servers, server: int) -> bool:
    """Whether the directory of a server that LFSCK makes is found by its name, and by its FID."""
    with contextlib.suppress(OSError):
        kept = os.open(mount + b"/.lustre/lost+found", os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = _posix.look(kept, name(server).encode())[0]
        finally:
            os.close(kept)
        return servers.of(found) == server and _is_there(mount, found)
    return False


def _is_there(mount: bytes, object_id: ObjectId) -> bool:
    try:
        os.lstat(mount + b"/.lustre/fid/" + fid.text(object_id).encode())
    except OSError:
        return False
    return True
