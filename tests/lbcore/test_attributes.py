"""Setting the attributes of one object."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lbcore import xattrs
from lbcore.attributes import Wish, set_attributes

_TOO_LONG = bytes(1 << 17)  # setxattr(2) takes 64 KiB at most, on any filesystem


def test_an_error_names_the_object_and_not_the_number_of_a_descriptor(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    fd = os.open(file, os.O_PATH)
    now = os.fstat(fd)
    wish = Wish(
        mode=now.st_mode, uid=now.st_uid, gid=now.st_gid, mtime_ns=0, extras={xattrs.PREFIX + "user.long": _TOO_LONG}
    )
    try:
        with pytest.raises(OSError, match="too long") as caught:
            set_attributes(fd, wish, privileged=False)
    finally:
        os.close(fd)
    assert (caught.value.errno, caught.value.filename) == (errno.E2BIG, os.fsencode(file))
