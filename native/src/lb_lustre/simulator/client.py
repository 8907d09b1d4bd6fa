"""Start a simulated Lustre, and ask it for something: what an administrator does there, and what may happen to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from lb_lustre.errors import LustreError

_STARTS_WITHIN_SECONDS = 20


@contextlib.contextmanager
def served(folder: str) -> Iterator[str]:
    """Serve a simulated Lustre below the new ``folder`` as long as the context lasts; gives its control socket.

    :raises LustreError: when it cannot be mounted.
    """
    os.mkdir(folder)
    mount = os.path.join(folder, "mount")
    server = subprocess.Popen([sys.executable, "-m", "lb_lustre.simulator", folder])
    try:
        until = time.monotonic() + _STARTS_WITHIN_SECONDS
        while not os.path.isdir(os.path.join(mount, "fs")):
            if server.poll() is not None or time.monotonic() > until:
                raise LustreError("the simulated Lustre could not be mounted: is FUSE there, and are you root?")
            time.sleep(0.02)  # it says by being there that it is mounted
        yield os.path.join(folder, "control")
    finally:
        # A program may still be in it; and where the server has ended, nothing is mounted.
        subprocess.run(["umount", "--lazy", mount], check=False)
        server.wait()


def ask(at: str, request: str, /, **arguments: Any) -> Any:
    """Make one request of the simulator whose socket is at a path.

    :raises OSError: as the simulated command fails.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(at)
        with connection.makefile("rw") as file:
            file.write(json.dumps({"request": request, **arguments}) + "\n")
            file.flush()
            answer = json.loads(file.readline())
    if "errno" in answer:
        raise OSError(answer["errno"], answer["error"])
    return answer["result"]
