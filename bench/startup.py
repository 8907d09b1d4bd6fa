"""How long a command takes that does nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from bench.measure import Sample, middle, run, spread
from bench.peers import Borg, Restic, Rsync, lb_program
from bench.report import Result
from bench.workspace import Workspace, alternating

TURNS = 15
LIMIT_SECONDS = 0.15


def help_time(workspace: Workspace) -> Result:
    """``lb --help``, beside the bare interpreter and the peers."""
    lb = (lb_program(), "--help")
    commands: list[Sequence[str]] = [lb, (sys.executable, "-c", "pass")]
    commands += [(peer.name, "--help") for peer in (Rsync, Restic, Borg) if peer.installed()]
    turns = min(TURNS, workspace.rounds * 3)
    samples: dict[str, list[Sample]] = {" ".join(command): [] for command in commands}
    for turn in range(turns + 1):
        for command in alternating(commands, turn):
            sample = run(command, environment=os.environ)
            if turn > 0:
                samples[" ".join(command)].append(sample)
    rows = []
    for command in commands:
        own = samples[" ".join(command)]
        label = " ".join((os.path.basename(command[0]), *command[1:]))
        if command is lb:
            verdict = f"goal < {LIMIT_SECONDS * 1000:.0f} ms: {'met' if middle(own) < LIMIT_SECONDS else 'MISSED'}"
        else:
            verdict = ""
        rows.append((label, f"{middle(own) * 1000:.0f}", spread(own), verdict))
    return Result(
        name="help",
        title="Time of `lb --help`",
        header=("command", "milliseconds (median)", "fastest to slowest (s)", "goal"),
        rows=rows,
        notes=[f"{turns} times each, after one that fills the caches."],
    )
