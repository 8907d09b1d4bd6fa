"""``.lb/runs/N``: the rows that run N began and ended, in a SQLite file of its own, with a checksum beside it.

All of them together hold everything the catalog knows of the points in time.
"""

from __future__ import annotations

import contextlib
import os

import xxhash

from lbcore.catalog.catalog import Catalog
from lbcore.target import LB, Target

_TABLES = {
    "run": "SELECT * FROM run WHERE run = :run",
    "object": "SELECT * FROM object WHERE first_run = :run",
    "object_past": "SELECT * FROM object_past WHERE last_run = :run - 1",
    "name": "SELECT * FROM name WHERE first_run = :run",
    "name_past": "SELECT * FROM name_past WHERE last_run = :run - 1",
    "extras": (
        "SELECT * FROM extras WHERE extras IN (SELECT extras FROM object WHERE first_run = :run AND extras IS NOT NULL)"
    ),
}


def write(catalog: Catalog, target: Target, run: int) -> None:
    """Write the file of a run that is about to be committed. Written anew when it is there."""
    path = os.path.join(target.path, LB, b"runs", b"%d" % run)
    part = path + b".part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    database = catalog.database
    with database.attach(part, "file"):
        # Nothing reads it before it is complete and has its name, so it needs no journal.
        database.execute("PRAGMA file.journal_mode = OFF")
        database.execute("PRAGMA file.synchronous = OFF")
        with database.transaction():
            for table, select in _TABLES.items():
                database.execute(f"CREATE TABLE file.{table} AS {select}", {"run": run})
    digest = xxhash.xxh3_128()
    with open(part, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        os.fsync(file.fileno())
    with open(path + b".xxh128", "w", encoding="ascii") as file_of_digest:
        file_of_digest.write(digest.hexdigest() + "\n")
        file_of_digest.flush()
        os.fsync(file_of_digest.fileno())
    os.rename(part, path)
    target.sync()
