"""What a real Lustre 2.17 did: raw changelog records, what ``lfs changelog`` printed of them, trees before and after.

The recordings are several megabytes and lie beside the checkout, or where ``LB_LUSTRE_RECORDINGS`` says.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("LB_LUSTRE_RECORDINGS") or Path(__file__).parents[3] / "shared" / "recordings")

needs_recordings = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs the recordings of a real Lustre (LB_LUSTRE_RECORDINGS)"
)


def dumps(pattern: str) -> list[str]:
    """Names of raw dumps, ``*.bin`` as liblustreapi gave the records, ``*.kbin`` as the device did."""
    return sorted(path.name for path in FOLDER.glob(pattern))


def reads(name: str) -> Iterator[bytes]:
    """The pieces of a raw dump: of ``.bin`` one record each, of ``.kbin`` what one read(2) gave."""
    data = (FOLDER / name).read_bytes()
    offset = 0
    while offset < len(data):
        (size,) = struct.unpack_from("<I", data, offset)
        yield data[offset + 4 : offset + 4 + size]
        offset += 4 + size


def text(name: str) -> bytes:
    """What ``lfs changelog`` printed of the records of a raw dump."""
    return (FOLDER / name).with_suffix(".txt").read_bytes()
