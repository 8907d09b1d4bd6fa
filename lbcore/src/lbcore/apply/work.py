"""What the phases share: the open run, and the loop over batches."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lbcore.attributes import Wish
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.hints import COLLECTION
from lbcore.catalog.names import Paths
from lbcore.catalog.objects import Row
from lbcore.catalog.steps import Step
from lbcore.errors import PausedError
from lbcore.model import HintFlag
from lbcore.progress import Progress
from lbcore.target import Target
from lbcore.versions import Versions

BATCH_STEPS = 10_000
"""Steps made durable together."""
MISSING = "missing"
"""Counted like an attribute that the target could not take: an object that is not in the mirror any more."""


@dataclass(kw_only=True, slots=True)
class Work:
    """The open run and where it works."""

    catalog: Catalog
    target: Target
    versions: Versions
    run: int
    resumed: bool
    """True when an earlier attempt at this run may have done more than it marked."""
    progress: Progress
    pause_requested: Callable[[], bool]
    """Whether the run was asked to stop at the next batch."""
    paths: Paths = field(init=False)
    """Paths in the mirror as it is now."""
    written: set[int] = field(default_factory=set)
    """Directories written in since the last mark."""
    refused: dict[str, int] = field(default_factory=dict)
    """How often the target could not take an attribute of this name, since the last mark."""

    def __post_init__(self) -> None:
        self.paths = Paths(self.catalog.names)

    def pause_point(self) -> None:
        """Called where nothing is in the air.

        :raises PausedError: when the run was asked to stop.
        """
        if self.pause_requested():
            raise PausedError(f"run {self.run} is paused; 'lb run' goes on with it")

    def begin_phase(self) -> None:
        """Directories may have moved since the last phase."""
        self.paths.forget()
        self.target.tree.forget()

    def in_batches(
        self, fetch: Callable[[], list[Step]], act: Callable[[Step], None], mark: Callable[[list[Step]], None]
    ) -> None:
        """Act on each step that ``fetch`` gives; make the batch durable; ``mark`` it, in one transaction."""
        self.begin_phase()
        while steps := fetch():
            for step in steps:
                act(step)
            self.checkpoint(lambda steps=steps: mark(steps))  # type: ignore[misc]
            self.progress.advance(len(steps))
            self.pause_point()

    def checkpoint(self, mark: Callable[[], None]) -> None:
        """Make everything done so far durable, then ``mark`` it in one transaction."""
        self.target.sync()
        self.enter(mark)

    def enter(self, mark: Callable[[], None]) -> None:
        """Everything done so far is durable: ``mark`` it in one transaction."""
        with self.catalog.database.transaction():
            mark()
            for path in self.target.unlocked | self.target.rebuilt:
                obj = self.catalog.names.find(path)
                if obj is not None:
                    self.written.add(obj)
            self.catalog.plan.write_in(self.written)
            self._note_rebuilt()
            self.count_refused()
        self.written.clear()
        self.target.unlocked.clear()
        self.target.rebuilt.clear()

    def count_refused(self) -> None:
        """Within a transaction: what could not be set, or was missing, counts in the run from now on."""
        if self.refused:
            self.catalog.runs.add_counts(self.run, {f"not_held_{name}": count for name, count in self.refused.items()})
            self.refused.clear()

    def _note_rebuilt(self) -> None:
        for path in sorted(self.target.rebuilt):
            obj = self.catalog.names.find(path)
            row = None if obj is None else self.catalog.objects.get(obj)
            if row is not None:
                self.note_missing(row)

    def path(self, parent: int, name: bytes) -> bytes:
        """The path of a name in the mirror; the directory is noted as written in."""
        return self.prefix(parent) + name

    def prefix(self, directory: int) -> bytes:
        """What the paths of names in a directory of the mirror begin with; it is noted as written in."""
        path = self.paths.directory(directory)
        assert path is not None, f"directory {directory} has no place in the mirror"
        self.written.add(directory)
        return path + b"/" if path else b""

    def wish(self, thing: Step | Row) -> Wish:
        """The attributes a step is to give, or a row says that an object has."""
        return Wish(
            mode=thing.mode,
            uid=thing.uid,
            gid=thing.gid,
            mtime_ns=thing.mtime_ns,
            extras=self.catalog.extras.get(thing.extras),
        )

    def note_missing(self, thing: Step | Row) -> None:
        """Somebody took an object out of the mirror, or replaced it: that is damage, and the next run brings it.

        With a directory, all that the catalog has below it; unless an earlier run has noted so, and this one mends it.
        """
        hints, is_directory = self.catalog.hints, stat.S_ISDIR(thing.mode)
        if is_directory and hints.flags(thing.id) & HintFlag.DAMAGED:
            return
        self.note_refused([MISSING])
        after = (self.catalog.meta.get(COLLECTION) or 0) + 1
        with self.catalog.database.transaction():
            hints.keep(thing.id, HintFlag.DAMAGED, after)
            if is_directory:
                hints.keep_below(thing.obj, HintFlag.DAMAGED, after)

    def note_refused(self, names: Mapping[str, int] | list[str]) -> None:
        """Count attributes that the target could not take."""
        counts = names if isinstance(names, Mapping) else dict.fromkeys(names, 1)
        for name, count in counts.items():
            self.refused[name] = self.refused.get(name, 0) + count
