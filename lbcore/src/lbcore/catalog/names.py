"""Names, now and at each run: tables ``name`` and ``name_past``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from lbcore.catalog.database import Database
from lbcore.catalog.objects import ROOT

_CHILD_AT = (
    "SELECT obj FROM name WHERE parent = :parent AND name = :name AND first_run <= :run UNION ALL "
    "SELECT obj FROM name_past WHERE parent = :parent AND name = :name AND first_run <= :run AND last_run >= :run"
)
_CHILDREN_AT = (
    "SELECT name, obj FROM name WHERE parent = :parent AND first_run <= :run UNION ALL "
    "SELECT name, obj FROM name_past WHERE parent = :parent AND first_run <= :run AND last_run >= :run ORDER BY name"
)
_NAMES_AT = (
    "SELECT parent, name FROM name WHERE obj = :obj AND first_run <= :run UNION ALL "
    "SELECT parent, name FROM name_past WHERE obj = :obj AND first_run <= :run AND last_run >= :run ORDER BY 1, 2"
)


class Names:
    """Look up names; enter the effects of a batch (table ``batch``, see ``steps``)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, obj: int) -> list[tuple[int, bytes]]:
        """All names of an object now, as (parent, name), in a stable order."""
        sql = "SELECT parent, name FROM name WHERE obj = ? ORDER BY parent, name"
        return self._database.execute(sql, (obj,)).fetchall()

    def of_at(self, obj: int, run: int) -> list[tuple[int, bytes]]:
        """All names of an object at ``run``."""
        return self._database.execute(_NAMES_AT, {"obj": obj, "run": run}).fetchall()

    def child_at(self, parent: int, name: bytes, run: int) -> int | None:
        """The object that had this name at ``run``, or None."""
        value: int | None = self._database.value(_CHILD_AT, {"parent": parent, "name": name, "run": run})
        return value

    def child(self, parent: int, name: bytes) -> int | None:
        """The object that has this name now, or None."""
        value: int | None = self._database.value("SELECT obj FROM name WHERE parent = ? AND name = ?", (parent, name))
        return value

    def find(self, path: bytes) -> int | None:
        """The object at a path of the mirror as it is now, or None."""
        obj: int | None = ROOT
        for name in path.split(b"/") if path else ():
            obj = self.child(obj, name) if obj is not None else None
        return obj

    def children_at(self, parent: int, run: int) -> Iterator[tuple[bytes, int]]:
        """The names in a directory at ``run``, sorted."""
        yield from self._database.execute(_CHILDREN_AT, {"parent": parent, "run": run})

    def periods(self, obj: int) -> list[tuple[int, int | None, int, bytes]]:
        """Every name an object had: (first run, last run or None, parent, name), oldest first."""
        return self._database.execute(
            "SELECT first_run, last_run, parent, name FROM name_past WHERE obj = :obj UNION ALL "
            "SELECT first_run, NULL, parent, name FROM name WHERE obj = :obj ORDER BY 1, 3, 4",
            {"obj": obj},
        ).fetchall()

    def lose_batch(self, run: int) -> None:
        """The names that the steps of the batch lose are gone."""
        lost = "FROM batch b CROSS JOIN step_name s ON s.obj = b.obj AND s.gained = 0 "
        names = "CROSS JOIN name n ON n.parent = s.parent AND n.name = s.name AND n.obj = s.obj"
        self._database.execute(
            f"INSERT INTO name_past SELECT n.parent, n.name, :run - 1, n.obj, n.first_run {lost}{names} "
            "WHERE n.first_run < :run",
            {"run": run},
        )
        # One by one: for a list of pairs SQLite would look through all names of each parent.
        rows = self._database.execute(f"SELECT n.parent, n.name {lost}{names}").fetchall()
        self._database.execute_many("DELETE FROM name WHERE parent = ? AND name = ?", rows)

    def gain_batch(self, run: int) -> None:
        """The names that the steps of the batch gain are there."""
        self._database.execute(
            "INSERT OR REPLACE INTO name SELECT s.parent, s.name, s.obj, ? "
            "FROM batch b CROSS JOIN step_name s ON s.obj = b.obj AND s.gained = 1",
            (run,),
        )


class Paths:
    """Paths of objects, with the last directories remembered. ``run`` None: as the mirror is now."""

    def __init__(self, names: Names, run: int | None = None, keep: int = 10_000) -> None:
        self._names = names
        self._run = run
        self._keep = keep
        self._directories: OrderedDict[int, bytes | None] = OrderedDict()
        self._fixed: dict[int, bytes] = {ROOT: b""}

    def fix(self, obj: int, path: bytes) -> None:
        """A directory has just been set down at ``path``; the catalog learns of it with the batch."""
        self._fixed[obj] = path

    def forget(self) -> None:
        """Directories have moved: look everything up again."""
        self._directories.clear()
        self._fixed = {ROOT: b""}

    def directory(self, obj: int) -> bytes | None:
        """The path of a directory relative to the root, or None where it has none (it lies in the stage)."""
        fixed = self._fixed.get(obj)
        if fixed is not None:
            return fixed
        if obj in self._directories:
            self._directories.move_to_end(obj)
            return self._directories[obj]
        names = self._names.of(obj) if self._run is None else self._names.of_at(obj, self._run)
        path = self.join(*names[0]) if names else None
        self._directories[obj] = path
        if len(self._directories) > self._keep:
            self._directories.popitem(last=False)
        return path

    def join(self, parent: int, name: bytes) -> bytes | None:
        """The path of ``name`` in directory ``parent``, or None where that has none."""
        # Not recursive to the depth of the tree: that may exceed Python's stack.
        chain = [name]
        while parent != ROOT:
            if parent in self._fixed or parent in self._directories:
                known = self._fixed.get(parent) or self._directories[parent]
                if known is None:
                    return None
                chain.append(known)
                break
            names = self._names.of(parent) if self._run is None else self._names.of_at(parent, self._run)
            if not names:
                return None
            parent, name = names[0]
            chain.append(name)
        return b"/".join(reversed(chain))

    def of(self, obj: int) -> list[bytes]:
        """All paths of an object, in a stable order."""
        names = self._names.of(obj) if self._run is None else self._names.of_at(obj, self._run)
        found = []
        for parent, name in names:
            directory = self.directory(parent)
            if directory is not None:
                found.append(directory + b"/" + name if directory else name)
        return found
