"""``python -m lb_lustre.simulator.lctl FOLDER lctl …``: ``lctl`` on any server of the Lustre simulated at FOLDER."""

from __future__ import annotations

import os
import sys
from typing import Any

from lb_lustre.simulator import lctl_changelogs, lctl_snapshots
from lb_lustre.simulator.client import ask
from lb_lustre.simulator.lctl_changelogs import FailureError, Lctl


def main() -> None:
    """Do one command, and end with its status."""
    folder, program, *words = sys.argv[1:]
    device = None
    if words[:1] == ["--device"]:
        _, device, *words = words
    command, *words = words

    def asking(request: str, **arguments: Any) -> Any:
        return ask(os.path.join(folder, "control"), request, **arguments)

    if program == "lctl" and (status := asking("refused", command=command)):
        _end(status, error=f"Can't {command.removeprefix('snapshot_')} the snapshot {words[-1]}")
    if program == "lctl" and command in lctl_snapshots.COMMANDS:
        lctl_snapshots.COMMANDS[command](asking, words)
    elif program == "lctl" and command in lctl_changelogs.COMMANDS:
        _end(*_on_server(Lctl(asking, device), command, words))
    else:
        _end(2, error=f"{program} {command}: not simulated")


def _on_server(lctl: Lctl, command: str, words: list[str]) -> tuple[int, str, str]:
    """Status, output and errors of a command."""
    try:
        return 0, lctl_changelogs.COMMANDS[command](lctl, words), ""
    except FailureError as failure:
        return failure.status, failure.output, failure.error
    except OSError as failed:
        status = failed.errno or 1
        return status, "", f"error: {command}: {os.strerror(status)}"


def _end(status: int, output: str = "", error: str = "") -> None:
    for text, stream in ((output, sys.stdout), (error, sys.stderr)):
        if text:
            print(text, file=stream)
    sys.exit(status)


if __name__ == "__main__":
    main()
