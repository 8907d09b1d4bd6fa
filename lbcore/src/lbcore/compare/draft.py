"""The steps of a run while they are being found: numbers for new objects, rows that wait to be written."""

from __future__ import annotations

import itertools
import sqlite3
import stat
from typing import Any

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.objects import Row
from lbcore.catalog.renumbered import Old
from lbcore.catalog.steps import PlainFile, What
from lbcore.keeping import lacks_content
from lbcore.model import Entry, HintFlag, ObjectId, View

_BUFFER_ROWS = 5_000
_NEW_FILE = What.NEW | What.DATA


class Draft:
    """What one observation of the source has found so far. Within one transaction of the caller's."""

    def __init__(self, catalog: Catalog, run: int, view: View, *, kept_collection: int, racy_since_ns: int) -> None:
        """
        :param kept_collection: number under which hints are kept for the next run.
        :param racy_since_ns: content changed since then is compared again by the next run.
        """
        self.catalog = catalog
        self.view = view
        self.racy_since_ns = racy_since_ns
        self.empty = not catalog.objects.any()
        """Whether this is the first backup: nothing is known."""
        self.moving = False
        """True when something was seen twice, and differently: the view did not hold still."""
        self._renumbered = catalog.renumbered.any()
        self._run = run
        self._kept_collection = kept_collection
        self._next = catalog.objects.largest_number() + 1
        self._steps: list[tuple[Any, ...]] = []
        self._plain: list[PlainFile] = []
        self._names: list[tuple[int, bytes, int]] = []
        self._buffered: dict[ObjectId, int] = {}

    # -- objects ------------------------------------------------------------------------------------------------

    def number(self, object_id: ObjectId) -> int | None:
        """The object of this id in this run's view of the world, or None."""
        obj = self._buffered.get(object_id)
        if obj is None:
            obj = self.catalog.plan.number_of(object_id)
        if obj is None and not self.empty:
            row = self.catalog.objects.by_id(object_id)
            obj = None if row is None else row.obj
        if obj is None and self._renumbered:
            before = self.catalog.renumbered.before(object_id)
            if before is not None and before.seen in (Old.GONE, Old.FOLLOWED):
                return self.number(before.id)
        return obj

    def number_of_entry(self, entry: Entry) -> int | None:
        """The same for one name of a listing."""
        obj = self._buffered.get(entry.id)
        if obj is not None:
            return obj
        # The first backup knows no object; only what has several names can be in the plan already.
        if self.empty and entry.attributes.nlink == 1:
            return None
        return self.number(entry.id)

    def new_number(self) -> int:
        """A number for an object that was not known."""
        self._next += 1
        return self._next - 1

    def begin_after(self, obj: int) -> None:
        """New numbers are larger than ``obj``."""
        self._next = max(self._next, obj + 1)

    # -- what is found ------------------------------------------------------------------------------------------

    def add_new(self, row: tuple[Any, ...], object_id: ObjectId) -> None:
        """A step for an object that has none."""
        self._steps.append(row)
        self._buffered[object_id] = row[0]

    def add_plain(self, file: PlainFile) -> None:
        """A new file with one name."""
        self._plain.append(file)
        if len(self._plain) >= _BUFFER_ROWS:
            self.flush()

    def add_name(self, parent: int, name: bytes, obj: int) -> None:
        """A name that an object has now."""
        self._names.append((parent, name, obj))
        if len(self._names) >= _BUFFER_ROWS:
            self.flush()

    def add_problem(self, path: bytes, reason: str) -> None:
        """Something that could not be looked at."""
        self.catalog.runs.add_problem(self._run, path, reason, counted=True)

    def keep_hint(self, object_id: ObjectId, flags: HintFlag) -> None:
        """The next run is to look at an object, whether or not a feed names it."""
        self.catalog.hints.keep(object_id, flags, self._kept_collection)

    def keep_if_racy(self, object_id: ObjectId, ctime_ns: int, flags: HintFlag) -> None:
        """The same, for what changed so shortly before that it may change again under the same time stamps."""
        moving = not self.view.stable or self.view.late_data
        if moving and ctime_ns >= self.racy_since_ns:
            self.keep_hint(object_id, flags)

    def keep_entry_if_racy(self, entry: Entry) -> None:
        """The same, for what an entry shows."""
        flags = HintFlag.ATTRIBUTES  # extended attributes may change without any other sign than the ctime
        if stat.S_ISREG(entry.attributes.mode):
            flags |= HintFlag.DATA
        self.keep_if_racy(entry.id, entry.attributes.ctime_ns, flags)

    # -- to the plan --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what is buffered."""
        plan = self.catalog.plan
        try:
            with self.catalog.database.savepoint():
                plan.add(self._steps)
                plan.add_plain(self._plain)
        except sqlite3.IntegrityError:
            self._flush_one_by_one()
        plan.gain_names(self._names)
        self._steps.clear()
        self._plain.clear()
        self._names.clear()
        self._buffered.clear()

    def _flush_one_by_one(self) -> None:
        """A file with one name was seen at two (it moved while the tree was walked): it stays one object."""
        plan = self.catalog.plan
        renumbered = {}
        plain = ((*file[:8], 0, 0, None, None, None, None, _NEW_FILE) for file in self._plain)
        for row in itertools.chain(self._steps, plain):
            obj = plan.number_of(row[1])
            if obj is not None:
                renumbered[row[0]] = obj
            plan.put((obj or row[0], *row[1:]))
        names = self._names + [(file.parent, file.name, file.obj) for file in self._plain]
        self._names = [(parent, name, renumbered.get(obj, obj)) for parent, name, obj in names]


def step_row(
    obj: int, entry: Entry, what: int, known: Row | None, *, link_target: bytes | None, extras: int | None
) -> tuple[Any, ...]:
    """The columns of a step for an object as an entry shows it.

    :param known: the object as the catalog has it, if it has.
    :param extras: their number in the catalog.
    """
    now = entry.attributes
    size = 0 if stat.S_ISDIR(now.mode) else now.size
    digest, data_run = (known.digest, known.data_run) if known else (None, None)
    return (
        obj, entry.id, now.mode, now.uid, now.gid, size, now.mtime_ns, now.ctime_ns, now.rdev,
        int(entry.mount), link_target, extras, digest, data_run, what,
    )  # fmt: skip


def differs(row: Row, entry: Entry) -> bool:
    """Whether an object is not as the catalog has it."""
    now = entry.attributes
    return (
        row.ctime_ns != now.ctime_ns
        or row.mtime_ns != now.mtime_ns
        or row.mode != now.mode
        or row.uid != now.uid
        or row.gid != now.gid
        or row.rdev != now.rdev
        or row.mount != entry.mount
        or (row.size != now.size and not stat.S_ISDIR(now.mode))
        or lacks_content(row.mode, row.digest)
    )
