"""Read files of a live Lustre by FID, and tell whether they were written to meanwhile.

Sources: section 7 (``llapi_get_data_version``) and section 9, items 5 and 6 of the reference.
"""

from __future__ import annotations

import errno
import logging
import os

from lb_lustre import fid
from lb_lustre._lustreapi import Library
from lb_lustre.errors import LustreError, LustreUnavailableError
from lb_lustre.mounts import find_mount
from lbcore.model import ObjectId

_log = logging.getLogger(__name__)

_NO_VERSION = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS)
"""What is said of a file on another filesystem, which is mounted below, and by servers that keep no versions."""


class LiveContent:
    """Files of one mounted filesystem (see ``lbcore.model.ById``). The library is loaded wherever this comes to."""

    def __init__(self, mount: bytes) -> None:
        self._mount = mount
        self._by_fid = mount + b"/.lustre/fid/"
        self._library, self.lacking = _load()
        """``lacking``: why there are no versions; None when there are."""

    def __reduce__(self) -> tuple[type[LiveContent], tuple[bytes]]:
        return type(self), (self._mount,)

    def path(self, object_id: ObjectId) -> bytes:
        """See ``lbcore.model.ById``."""
        return self._by_fid + fid.text(object_id).encode()

    def version(self, fd: int) -> int | None:
        """The data version, once whoever writes to the file has sent what is cached: else pages that our own reading
        makes them send would look like a change."""
        if self._library is None:
            return None
        try:
            return self._library.data_version(fd, True)
        except OSError as error:
            if error.errno in _NO_VERSION:
                return None
            raise


def _load() -> tuple[Library | None, str | None]:
    try:
        library = Library()
        library.data_version(-1, False)  # no file: whether the library has the function
    except LustreUnavailableError as error:
        return None, str(error)
    except OSError:
        pass
    return library, None


def find_content(root: bytes) -> LiveContent | None:
    """For the filesystem that ``root`` is on; None where its files cannot be reached by FID (only root may)."""
    try:
        content = LiveContent(find_mount(root))
        os.lstat(content.path(fid.ROOT))
    except (OSError, LustreError) as error:
        _log.warning("files are read by their paths, and not by FID: %s", error)
        return None
    if content.lacking is not None:
        _log.warning("that a file is written to while it is read is told by its times alone: %s", content.lacking)
    return content
