"""What Lustre keeps with an object besides POSIX: layouts, project id, state of HSM. Read by path, nothing is opened.

Sources: section 7 of the reference; ``struct hsm_attrs``, ``lmv_mds_md_v1`` and ``lmv_user_md_v1`` (lustre_idl.h,
lustre_user.h); recordings.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Mapping

from lb_lustre import layout
from lb_lustre.errors import LustreError

LAYOUT = "lustre:layout"
"""Of a file: its layout as a template."""
DEFAULT_LAYOUT = "lustre:default_layout"
"""Of a directory: the layout of new files in it, as a template."""
DIRECTORY_LAYOUT = "lustre:dir_layout"
"""Of a striped directory: ``struct lmv_mds_md_v1`` without its stripes."""
DEFAULT_DIRECTORY_LAYOUT = "lustre:default_dir_layout"
"""Of a directory: how new directories in it are made (``struct lmv_user_md_v1``)."""
PROJECT = "lustre:project"
"""Project id in decimal; none for project 0."""
HSM = "lustre:hsm"
"""``struct hsm_attrs``: flags, number of the archive, version archived."""

PROJECT_XATTR, HSM_XATTR = "trusted.projid", "trusted.hsm"
STRIPES_XATTR, DEFAULT_STRIPES_XATTR = "trusted.lmv", "trusted.dmv"
SERVERS_LAYOUT_XATTR = "trusted.lov"
_HSM = struct.Struct("<IIQQ")
HSM_RELEASED, HSM_LOST = 0x04, 0x40
STRIPES = struct.Struct("<IIIIIIII8s16s")
"""Magic, number of stripes, first server, kind of hash, version, four of migrations and padding; pool."""
_HASH_KIND = 0xFFFF
_ABSENT = (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS)


def read(path: bytes, mode: int) -> dict[str, bytes]:
    """What is kept with the object at ``path`` (no link is followed).

    After ``lstat`` and a list of its extended attributes a client knows all this: it costs the servers nothing more,
    but one request for each directory that has a default layout.

    :raises OSError: when something is there and cannot be read.
    """
    try:
        if stat.S_ISREG(mode):
            return _present({LAYOUT: _layout(path), PROJECT: _project(path), HSM: _get(path, HSM_XATTR)})
        if stat.S_ISDIR(mode):
            return _present(_of_directory(path))
    except LustreError as error:
        raise OSError(errno.EIO, str(error), path) from error
    return {}


def _present(found: dict[str, bytes | None]) -> dict[str, bytes]:
    return {key: value for key, value in found.items() if value is not None}


def _of_directory(path: bytes) -> dict[str, bytes | None]:
    names = os.listxattr(path, follow_symlinks=False)
    return {
        # A client asks the server for it each time: only where there is one.
        DEFAULT_LAYOUT: _layout(path) if SERVERS_LAYOUT_XATTR in names else None,
        DIRECTORY_LAYOUT: _stripes(path) if STRIPES_XATTR in names else None,
        DEFAULT_DIRECTORY_LAYOUT: _get(path, DEFAULT_STRIPES_XATTR) if DEFAULT_STRIPES_XATTR in names else None,
        PROJECT: _project(path),
    }


def _layout(path: bytes) -> bytes | None:
    data = _get(path, layout.XATTR)
    return None if data is None else layout.emit(layout.template(layout.parse(data)))


def _project(path: bytes) -> bytes | None:
    """The id, which clients offer as an extended attribute; files and directories would have to be opened to ask."""
    data = _get(path, PROJECT_XATTR)
    text = b"" if data is None else data.rstrip(b"\0")
    return text if text not in (b"", b"0") else None


def _stripes(path: bytes) -> bytes | None:
    """What is the same for a directory made alike: number of stripes, first server, kind of hash."""
    data = _get(path, STRIPES_XATTR)
    if data is None or len(data) < STRIPES.size:
        return None
    magic, count, first, kind, _, _, _, _, _, pool = STRIPES.unpack_from(data)
    if count < 2:
        return None
    return STRIPES.pack(magic, count, first, kind & _HASH_KIND, 0, 0, 0, 0, bytes(8), pool)


def _get(path: bytes, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def hsm_state(extras: Mapping[str, bytes]) -> tuple[int, int]:
    """The states of HSM (section 7 of the reference), and the number of the archive; zeros where none is kept."""
    kept = extras.get(HSM, b"")
    if len(kept) < _HSM.size:
        return 0, 0
    _, states, archive, _ = _HSM.unpack_from(kept)
    return states, archive


def content_is_away(extras: Mapping[str, bytes]) -> bool:
    """Whether the file is released: its content is in the archive of HSM, and reading would bring it back.

    Both the state and the layout say so; who is not root sees the layout only.
    """
    if hsm_state(extras)[0] & HSM_RELEASED:
        return True
    blob = extras.get(LAYOUT)
    return blob is not None and layout.is_released(layout.parse(blob))
