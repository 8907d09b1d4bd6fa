"""What ``lctl`` does on the servers of a simulated Lustre: which command it is, and how it ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from lb_lustre.simulator import lctl_changelogs, lctl_snapshots
from lb_lustre.simulator.lctl_changelogs import Lctl
from lb_lustre.simulator.lctl_failure import FailureError

_UNKNOWN = 2


def run(ask: Callable[..., Any], program: str, words: list[str]) -> tuple[int, str, str]:
    """Do one command; its status, and what it prints on standard output and error.

    :param ask: makes a request of the simulator; errors are as the system gives them.
    """
    device = None
    if words[:1] == ["--device"]:
        _, device, *words = words
    command, *words = words
    if program == "lctl" and (status := ask("refused", command=command)):
        return status, "", f"Can't {command.removeprefix('snapshot_')} the snapshot {words[-1]}"
    try:
        if program == "lctl" and command in lctl_snapshots.COMMANDS:
            return 0, lctl_snapshots.COMMANDS[command](ask, words), ""
        if program == "lctl" and command in lctl_changelogs.COMMANDS:
            return 0, lctl_changelogs.COMMANDS[command](Lctl(ask, device), words), ""
    except FailureError as failure:
        return failure.status, failure.output, failure.error
    except OSError as failed:
        status = failed.errno or 1
        return status, "", f"error: {command}: {os.strerror(status)}"
    return _UNKNOWN, "", f"{program} {command}: not simulated"
