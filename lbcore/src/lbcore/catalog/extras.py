"""Extended attributes and plugins' extras: table ``extras``. Equal sets are stored once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from lbcore.catalog.database import Database


def pack(extras: Mapping[str, bytes]) -> bytes:
    """One set as bytes; equal sets give equal bytes."""
    return json.dumps({key: extras[key].decode("latin-1") for key in sorted(extras)}).encode()


def unpack(data: bytes) -> dict[str, bytes]:
    """The inverse of ``pack``."""
    return {key: value.encode("latin-1") for key, value in json.loads(data).items()}


class Extras:
    """Sets of named byte strings, by row number."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def number(self, extras: Mapping[str, bytes]) -> int | None:
        """The row of this set, made when new; None for an empty one."""
        if not extras:
            return None
        data = pack(extras)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        row: int | None = self._database.value("SELECT extras FROM extras WHERE digest = ?", (digest,))
        if row is None:
            row = self._database.execute("INSERT INTO extras (digest, data) VALUES (?, ?)", (digest, data)).lastrowid
        return row

    def get(self, number: int | None) -> dict[str, bytes]:
        """The set of a row; empty for None."""
        if number is None:
            return {}
        return unpack(self._database.value("SELECT data FROM extras WHERE extras = ?", (number,)))
