"""``python -m lb_lustre.simulator FOLDER``: a simulated Lustre at FOLDER/mount, until it is unmounted."""

from __future__ import annotations

import argparse
import os

from lb_lustre.simulator.control import Control
from lb_lustre.simulator.filesystem import Filesystem
from lb_lustre.simulator.mount import Mount, serve
from lb_lustre.simulator.snapshots import Snapshots


def main() -> None:
    """Serve one filesystem and its snapshots."""
    parser = argparse.ArgumentParser(prog="lb_lustre.simulator", description=__doc__)
    parser.add_argument("folder", help="an empty folder for the mount, the content and the control socket")
    parser.add_argument("--name", default="simfs", help="name of the filesystem, at most 8 characters")
    parser.add_argument("--mdts", type=int, default=2, help="how many metadata servers")
    chosen = parser.parse_args()
    mounted, contents = os.path.join(chosen.folder, "mount"), os.path.join(os.fsencode(chosen.folder), b"contents")
    os.makedirs(mounted, exist_ok=True)
    filesystems = {chosen.name: Filesystem(chosen.name, os.path.join(contents, b"live"), chosen.mdts)}
    mount = Mount(filesystems)
    snapshots = Snapshots(filesystems, chosen.name, contents)
    Control(mount, filesystems, chosen.name, snapshots).serve(os.path.join(chosen.folder, "control"))
    serve(mount, mounted)


if __name__ == "__main__":
    main()
