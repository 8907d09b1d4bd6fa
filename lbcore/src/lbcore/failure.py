"""Errors that nothing below has put into words: what failed, where, and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator

from lbcore.errors import CatalogError

_ADVICE = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or raise the quota",
    errno.EROFS: "mount it writable",
    errno.EIO: "see what the system's log says of that disk",
    errno.EACCES: "see to the permissions there",
    errno.EPERM: "see to the permissions there",
    errno.ELOOP: "a symbolic link is where a directory of the backup was: put that back",
    errno.ENOTDIR: "something else is where a directory of the backup was: put that back",
}


def explain(error: OSError | sqlite3.Error, target: bytes, catalog: bytes) -> str:
    """One line about an error that stopped a run."""
    text = of_database(error, catalog) if isinstance(error, sqlite3.Error) else _of_system(error, target)
    return f"{text}, then 'lb run' goes on; nothing is lost"


def _of_system(error: OSError, target: bytes) -> str:
    what = error.strerror or str(error)
    name = "" if error.filename is None else os.fsdecode(error.filename)
    # Operations below an open directory know the last part of the path, some not even that.
    at = f" (at {name})" if name else ""
    where = name if name.startswith("/") else f"the target {os.fsdecode(target)}{at}"
    return f"{where}: {what}; {_ADVICE.get(error.errno or 0, 'mend that')}"


@contextlib.contextmanager
def explained(catalog: bytes) -> Iterator[None]:
    """An error of the database becomes one that says which database, and what to do.

    :raises CatalogError: when it fails.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise CatalogError(of_database(error, catalog)) from error


def of_database(error: sqlite3.Error, catalog: bytes) -> str:
    """What is wrong with a database, and what to do about it."""
    where, what = f"the catalog {os.fsdecode(catalog)}", str(error)
    if "malformed" in what or "not a database" in what:
        return f"{where}: {what}; keep it as it is, and bring back a copy (job.db.before-* beside it, or a backup)"
    if "full" in what:
        return f"{where}: {what}; make room there"
    if "readonly" in what:
        return f"{where}: {what}; make it writable"
    if "locked" in what:
        return f"{where}: {what}; end the program that has it open"
    return f"{where}: {what}; see what the system's log says of that disk"
