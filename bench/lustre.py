"""A run that follows changelogs: the same changes on a small and on a large simulated Lustre, stage by stage."""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Mapping

from bench.measure import BenchError, NotMeasured
from bench.report import Result, say
from bench.workspace import Workspace, goal
from lb_lustre.errors import LustreError
from lb_lustre.simulator import client, standins
from lbcore import hookimpl
from lbcore.events import StageFinished
from lbcore.testing.job import Job

_FILES_PER_DIRECTORY = 100
_MDTS = 2
_STAGES = ("collect", "observe", "plan", "lift", "place", "content", "attributes", "verify", "commit")


class _Watch:
    """Adds up how long each stage took."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @hookimpl
    def lb_stage_finished(self, event: StageFinished) -> None:
        self.seconds[event.stage] += event.seconds


def changes_on_lustre(workspace: Workspace) -> Result:
    """Runs of the same number of changes on filesystems of growing size."""
    if os.geteuid() != 0:
        raise NotMeasured("only root may mount the simulated Lustre so that FIDs are seen")
    rows, totals = [], []
    changes = workspace.lustre_changes
    for files in workspace.lustre_files:
        folder = workspace.folder(f"lustre-{files}")
        try:
            served = os.path.join(folder, "served")
            with client.served(served) as control:
                os.environ.update(standins.client_environment(served))
                seconds = min((_measured(folder, control, files, changes, turn) for turn in range(3)), key=_total)
        except LustreError as error:
            raise NotMeasured(str(error)) from error
        totals.append(_total(seconds))
        per_change = [f"{seconds[stage] / changes * 1e6:,.0f}" for stage in _STAGES]
        rows.append((f"{files:,}", *per_change, f"{totals[-1]:.2f}"))
    return Result(
        name="lustre",
        title=f"A run of {changes:,} changes that a changelog names",
        header=("files", *(f"{stage} (µs)" for stage in _STAGES), "seconds in all"),
        rows=rows,
        notes=[
            f"{workspace.lustre_files[-1]:,} files by {workspace.lustre_files[0]:,} files: "
            f"{goal(totals[-1] / totals[0], 1.3)}.",
            "µs: of each change, in the best of 3 runs. A quarter each: written, renamed, mode changed, removed.",
            "Each look goes through FUSE to a Python process that plays Lustre; a real one answers in other times.",
        ],
    )


def _total(seconds: Mapping[str, float]) -> float:
    return sum(seconds.values())


def _measured(folder: str, control: str, files: int, changes: int, turn: int) -> Mapping[str, float]:
    """Change, and run. The first turn makes the tree and its first backup."""
    watch = _Watch()
    served = os.path.join(folder, "served")
    source = os.path.join(served, "mount", "fs", "simfs")
    users = [f"MDT{mdt:04x}=cl1-bench" for mdt in range(_MDTS)]
    options = {"filesystem": "simfs", "devices": os.path.join(served, "mount", "dev"), "users": users}
    job = Job(os.fsencode(os.path.join(folder, "job")), watch, racy_seconds=0, max_delete="100%")
    job.source = os.fsencode(source)
    job.configure(detector="changelog", changelog=options)
    if not turn:
        say(f"  making {files:,} files and their first backup")
        client.ask(control, "populate", files=files, per_directory=_FILES_PER_DIRECTORY)
        for mdt in range(_MDTS):
            client.ask(control, "register", mdt=mdt, name="bench")
        _run(job)
        watch.seconds.clear()
    _change(source, files, changes, turn)
    _run(job)
    say(f"  {files:,} files, {changes:,} changes: {_total(watch.seconds):.2f} s")
    return watch.seconds


def _run(job: Job) -> None:
    started = time.monotonic()
    outcome = job.run()
    if outcome.exit_code:
        raise BenchError(f"the run ended with status {outcome.exit_code}: {outcome.message}")
    say(f"  run {outcome.run}: {time.monotonic() - started:.1f} s, {dict(outcome.counts)}")


def _change(source: str, files: int, changes: int, turn: int) -> None:
    """Change files that no turn before has changed, far apart."""
    numbers = random.Random(7).sample(range(files), 3 * changes)[turn * changes : (turn + 1) * changes]  # noqa: S311
    for count, number in enumerate(numbers):
        path = f"{source}/{number // _FILES_PER_DIRECTORY:06d}/{number:08d}"
        if count % 4 == 0:
            with open(path, "wb") as file:
                file.write(b"changed")
        elif count % 4 == 1:
            os.rename(path, path + "-moved")
        elif count % 4 == 2:
            os.chmod(path, 0o600)
        else:
            os.unlink(path)
