"""A run that follows changelogs: the same changes on a small and on a large simulated Lustre, stage by stage."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

from bench.measure import BenchError, NotMeasured
from bench.populated import back_up_populated
from bench.report import Result, say
from bench.workspace import Workspace, goal
from lb_lustre.errors import LustreError
from lb_lustre.simulator import client, standins
from lbcore import hookimpl
from lbcore.events import RunStarted, StageFinished
from lbcore.run import Outcome
from lbcore.testing.job import Job

_FILES_PER_DIRECTORY = 100
_CHANGES_PER_DIRECTORY = 10
_MDTS = 2
_STAGES = ("collect", "observe", "plan", "lift", "place", "content", "attributes", "verify", "commit")
_SETTLED_SECONDS = 31
"""A record counts as kept by its server when it is read again, unchanged, so much later (``lb_lustre.changelog``)."""


_ALL = "all"
"""In the place of a stage: the whole run, from the lock to its end."""


class _Watch:
    """Adds up how long each stage took: by the clock, and of the processors for lb and the kernel on its behalf."""

    def __init__(self) -> None:
        self.elapsed: defaultdict[str, float] = defaultdict(float)
        self.processor: defaultdict[str, float] = defaultdict(float)
        self._spent = 0.0

    @hookimpl
    def lb_run_started(self, event: RunStarted) -> None:
        self._spent = time.process_time()

    @hookimpl
    def lb_stage_finished(self, event: StageFinished) -> None:
        self.elapsed[event.stage] += event.seconds
        spent = time.process_time()
        self.processor[event.stage] += spent - self._spent
        self._spent = spent

    def run(self, job: Job) -> None:
        """Run the job, which tells this about its stages."""
        self.elapsed.clear()
        self.processor.clear()
        began = time.process_time()
        outcome = _done(job.run())
        self.elapsed[_ALL], self.processor[_ALL] = outcome.seconds, time.process_time() - began


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """One run that follows changes, in seconds by stage."""

    elapsed: Mapping[str, float]
    processor: Mapping[str, float]
    next_seconds: float
    """What the run after it took, in which nothing has changed."""

    @property
    def seconds(self) -> float:
        """The whole run, by the clock."""
        return self.elapsed[_ALL]


def changes_on_lustre(workspace: Workspace) -> Result:
    """Runs of the same number of changes on filesystems of growing size, in turns: all meet the same machine."""
    if os.geteuid() != 0:
        raise NotMeasured("only root may mount the simulated Lustre so that FIDs are seen")
    changes = workspace.lustre_changes
    try:
        with contextlib.ExitStack() as stack:
            sizes = [
                _Size(files, workspace.folder(f"lustre-{files}"), changes, stack) for files in workspace.lustre_files
            ]
            for turn in range(workspace.lustre_turns):
                for size in sizes:
                    size.run(turn)
                if turn < workspace.lustre_turns - 1:
                    time.sleep(_SETTLED_SECONDS)  # so that the next runs let the servers forget the records of these
                for size in sizes:
                    size.run_again()
    except LustreError as error:
        raise NotMeasured(str(error)) from error
    best = [min(size.turns, key=attrgetter("seconds")) for size in sizes]
    rows = []
    for files, fastest in zip(workspace.lustre_files, best, strict=True):
        for what, seconds in (("elapsed", fastest.elapsed), ("processor", fastest.processor)):
            per_change = [f"{seconds[stage] / changes * 1e6:,.0f}" for stage in _STAGES]
            rows.append((f"{files:,}", what, *per_change, f"{seconds[_ALL]:.2f}"))
    spent = [one.processor[_ALL] for one in best]
    again = ", ".join(f"{one.next_seconds / changes * 1e6:,.0f}" for one in best)
    return Result(
        name="lustre",
        title=f"A run of {changes:,} changes that a changelog names",
        header=("files", "time", *(f"{stage} (µs)" for stage in _STAGES), "seconds in all"),
        rows=rows,
        notes=[
            f"{workspace.lustre_files[-1]:,} files by {workspace.lustre_files[0]:,} files: "
            f"{goal(best[-1].seconds / best[0].seconds, 1.3)}; processor time: {spent[-1] / spent[0]:.2f}.",
            f"µs: of each change, in the best of {workspace.lustre_turns} runs. A quarter each: written, renamed, mode "
            f"changed, removed; {_CHANGES_PER_DIRECTORY} in each of {changes // _CHANGES_PER_DIRECTORY:,} directories.",
            "Each look goes through FUSE to a Python process that plays Lustre; a real one answers in other times. "
            "processor: what lb itself needs, and the kernel on its behalf; not that process.",
            f"Until a record is known to be kept by its server, it is read again: µs of each change that the next run "
            f"takes, {again}.",
        ],
    )


class _Size:
    """A simulated Lustre of so many files that is served meanwhile, and its backup."""

    def __init__(self, files: int, folder: str, changes: int, stack: contextlib.ExitStack) -> None:
        self.turns: list[_Turn] = []
        self._files = files
        self._changes = changes
        self._watch = _Watch()
        served = os.path.join(folder, "served")
        self._source = os.path.join(served, "mount", "fs", "simfs")
        say(f"  making {files:,} files and their first backup")
        control = stack.enter_context(client.served(served))
        self._environment = standins.client_environment(served)
        os.environ.update(self._environment)
        client.ask(control, "populate", files=files, per_directory=_FILES_PER_DIRECTORY)
        users = [f"MDT{mdt:04x}={client.ask(control, 'register', mdt=mdt, name='bench')}" for mdt in range(_MDTS)]
        options = {"filesystem": "simfs", "devices": os.path.join(served, "mount", "dev"), "users": users}
        self._job = Job(os.fsencode(os.path.join(folder, "job")), self._watch, racy_seconds=0, max_delete="100%")
        self._job.source = os.fsencode(self._source)
        self._job.configure(detector="changelog", changelog=options)
        _done(back_up_populated(self._job, control))

    def run(self, turn: int) -> None:
        """Change what no turn before has changed, and follow it."""
        os.environ.update(self._environment)
        _change(self._source, self._files, self._changes, turn)
        os.sync()  # what the simulator left unwritten is not for lb to wait for
        self._watch.run(self._job)
        elapsed, processor = dict(self._watch.elapsed), dict(self._watch.processor)
        self.turns.append(_Turn(elapsed=elapsed, processor=processor, next_seconds=0.0))
        say(f"  {self._files:,} files, {self._changes:,} changes: {self.turns[-1].seconds:.2f} s")

    def run_again(self) -> None:
        """The run after that, in which nothing has changed."""
        os.environ.update(self._environment)
        self._watch.run(self._job)
        self.turns[-1] = dataclasses.replace(self.turns[-1], next_seconds=self._watch.elapsed[_ALL])


def _done(outcome: Outcome) -> Outcome:
    if outcome.exit_code:
        raise BenchError(f"the run ended with status {outcome.exit_code}: {outcome.message}")
    say(f"  run {outcome.run}: {outcome.seconds:.1f} s, {outcome.counts}")
    return outcome


def _change(source: str, files: int, changes: int, turn: int) -> None:
    """Change files that no turn before has changed, in directories that are far apart.

    A directory in which a name came or went has changed, too: there are as many, whatever the number of files.
    """
    apart = files * _CHANGES_PER_DIRECTORY // (_FILES_PER_DIRECTORY * changes)
    directories = range(0, files // _FILES_PER_DIRECTORY, apart)
    first = turn * _CHANGES_PER_DIRECTORY
    places = itertools.product(directories, range(first, first + _CHANGES_PER_DIRECTORY))
    for count, (directory, place) in enumerate(itertools.islice(places, changes)):
        path = f"{source}/{directory:06d}/{directory * _FILES_PER_DIRECTORY + place:08d}"
        if count % 4 == 0:
            with open(path, "wb") as file:
                file.write(b"changed")
        elif count % 4 == 1:
            os.rename(path, path + "-moved")
        elif count % 4 == 2:
            os.chmod(path, 0o600)
        else:
            os.unlink(path)
