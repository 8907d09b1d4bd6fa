"""``lfs changelog`` and ``lfs changelog_clear`` on a simulated Lustre."""

from __future__ import annotations

import os
import sys

from lb_lustre.record import decode

_READ_BYTES = 1 << 18


def _device(mdt: str) -> str:
    return os.path.join(os.environ["LB_SIMULATED_LUSTRE"], "dev", f"changelog-{mdt}")


def show(arguments: list[str]) -> None:
    """``changelog MDT``: all records there are."""
    (mdt,) = arguments
    descriptor = os.open(_device(mdt), os.O_RDONLY)
    try:
        while data := os.read(descriptor, _READ_BYTES):
            for record in decode(data):
                sys.stdout.buffer.write(record.text() + b"\n")
    finally:
        os.close(descriptor)


def clear(arguments: list[str]) -> None:
    """``changelog_clear MDT USER INDEX``: 0 is the last."""
    mdt, user, index = arguments
    descriptor = os.open(_device(mdt), os.O_WRONLY)
    try:
        os.write(descriptor, f"clear:{user}:{index}".encode())
    finally:
        os.close(descriptor)
