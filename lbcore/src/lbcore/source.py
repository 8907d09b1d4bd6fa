"""The source end: is it there, and is it the one this job backs up?"""

from __future__ import annotations

import os

from lbcore import _posix
from lbcore.catalog.catalog import Catalog
from lbcore.errors import SourceError
from lbcore.model import Attributes, ObjectId

_KEY = "source_root"


def look_at_root(path: bytes) -> tuple[ObjectId, Attributes]:
    """Id and attributes of the directory at the top of a source or view.

    :raises SourceError: when it is not a directory that can be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fields = _posix.look(fd, b"")
        finally:
            os.close(fd)
    except OSError as error:
        raise SourceError(
            f"the source {os.fsdecode(path)} cannot be read: {error.strerror}; is it mounted, readable for this user?"
        ) from error
    return fields[0], Attributes._make(fields[1:9])


def check_identity(catalog: Catalog, path: bytes, root: ObjectId) -> None:
    """The source is the one of the runs before; the first run records it.

    :raises SourceError: for another one: an empty mount point must never be taken for an emptied source.
    """
    known = catalog.meta.get(_KEY)
    if known is None:
        with catalog.database.transaction():
            catalog.meta.put(_KEY, root)
    elif known != root:
        raise SourceError(
            f"{os.fsdecode(path)} is not the directory this job has backed up so far (its root is another object): "
            "is the filesystem mounted? Nothing was changed"
        )
