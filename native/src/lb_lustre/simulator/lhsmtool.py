"""``lhsmtool_posix --rebind`` on a simulated Lustre: what the archive has of one file becomes another's."""

from __future__ import annotations

import os
import sys

from lb_lustre.simulator.lfs_request import simulator


def main(arguments: list[str]) -> int:
    """``[--hsm-root FOLDER] --rebind OLD NEW MOUNT``, or ``--rebind LIST MOUNT`` with two FIDs in each line."""
    *options, mount = arguments
    pairs = options[options.index("--rebind") + 1 :]
    if len(pairs) == 1:
        with open(pairs[0], encoding="utf-8") as lines:
            pairs = lines.read().split()
    request, _ = simulator(os.path.join(mount, "any"))
    failed = 0
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        try:
            request("rebind", old=old, new=new)
        except OSError as error:
            print(
                f"lhsmtool_posix: cannot rename '{old}' to '{new}': {error.strerror} ({error.errno})", file=sys.stderr
            )
            failed = error.errno or 1
    return failed
