"""Ask a simulated Lustre for something: what an administrator does there, and what may happen to it."""

from __future__ import annotations

import json
import socket
from typing import Any


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
