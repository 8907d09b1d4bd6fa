"""Runs and what went wrong in them: tables ``run`` and ``problem``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lbcore.catalog.database import Database

OPEN_STATES = ("observing", "applying", "filling", "verifying")
"""A run in one of these goes on with the next ``lb run``."""


class Run(NamedTuple):
    """One run; a committed one is a point in time."""

    run: int
    state: str
    """``observing``, ``applying`` (names), ``filling`` (content, attributes), ``verifying``; ``committed``;
    ``braked`` (planned anew by the next run)."""
    scan: int
    resumed: int
    """How often it went on after an interruption."""
    started_ns: int
    view_from_ns: int | None
    view_to_ns: int | None
    finished_ns: int | None
    gap: str | None
    message: str | None
    removals: int
    counts: Mapping[str, int]
    snapshot: str | None
    """Name of the snapshot it reads; None: the live tree, or none is taken yet."""
    collection: int | None
    """Number of its last collection: hints of later ones are not its own."""
    cut_ns: int
    """Up to when its hints tell, by the feed's clock; 0: unknown."""


class Problem(NamedTuple):
    """Something in the source that is not in the backup as it should be."""

    path: bytes
    reason: str
    counted: bool
    """True when it makes the exit status 3."""


class Runs:
    """Begin, change and list runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, started_ns: int) -> int:
        """A new run; returns its number."""
        cursor = self._database.execute(
            "INSERT INTO run (run, state, scan, started_ns) "
            "VALUES ((SELECT coalesce(max(run), 0) + 1 FROM run), 'observing', 0, ?)",
            (started_ns,),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def update(self, run: int, **values: Any) -> None:
        """Set columns of a run."""
        settings = ", ".join(f"{column} = ?" for column in values)
        self._database.execute(f"UPDATE run SET {settings} WHERE run = ?", (*values.values(), run))

    def add_counts(self, run: int, counts: Mapping[str, int]) -> None:
        """Add to the counts of a run."""
        row = self.get(run)
        assert row is not None
        total = dict(row.counts)
        for key, count in counts.items():
            total[key] = total.get(key, 0) + count
        self.update(run, counts=json.dumps(total))

    def get(self, run: int) -> Run | None:
        """A run by number, or None."""
        row = self._database.row("SELECT * FROM run WHERE run = ?", (run,))
        return None if row is None else _run(row)

    def open(self) -> Run | None:
        """The run that is not finished, or None."""
        marks = ", ".join("?" * len(OPEN_STATES))
        row = self._database.row(f"SELECT * FROM run WHERE state IN ({marks}) ORDER BY run DESC", OPEN_STATES)
        return None if row is None else _run(row)

    def last_committed(self) -> Run | None:
        """The newest point in time, or None."""
        row = self._database.row("SELECT * FROM run WHERE state = 'committed' ORDER BY run DESC LIMIT 1")
        return None if row is None else _run(row)

    def last(self) -> Run | None:
        """The newest run, whatever its state."""
        row = self._database.row("SELECT * FROM run ORDER BY run DESC LIMIT 1")
        return None if row is None else _run(row)

    def all(self) -> Iterator[Run]:
        """Every run, oldest first."""
        for row in self._database.execute("SELECT * FROM run ORDER BY run").fetchall():
            yield _run(row)

    def at_time(self, time_ns: int) -> Run | None:
        """The newest point in time whose state is not younger than ``time_ns``."""
        row = self._database.row(
            "SELECT * FROM run WHERE state = 'committed' AND view_to_ns <= ? ORDER BY run DESC LIMIT 1",
            (time_ns,),
        )
        return None if row is None else _run(row)

    def removals_since(self, time_ns: int) -> int:
        """How many objects runs that finished since then have removed."""
        sql = "SELECT sum(removals) FROM run WHERE state = 'committed' AND finished_ns >= ?"
        return int(self._database.value(sql, (time_ns,)) or 0)

    def add_problem(self, run: int, path: bytes, reason: str, *, counted: bool) -> None:
        """Note what could not be captured; a counted reason is not replaced by one that is not."""
        self._database.execute(
            "INSERT INTO problem VALUES (?, ?, ?, ?) ON CONFLICT (run, path) DO UPDATE SET "
            "reason = excluded.reason, counted = excluded.counted WHERE counted <= excluded.counted",
            (run, path, reason, counted),
        )

    def problems(self, run: int) -> Iterator[Problem]:
        """What could not be captured in a run, by path."""
        sql = "SELECT path, reason, counted FROM problem WHERE run = ? ORDER BY path"
        for path, reason, counted in self._database.execute(sql, (run,)):
            yield Problem(path, reason, bool(counted))

    def problem_count(self, run: int) -> int:
        """How many problems of a run make its exit status 3."""
        return int(self._database.value("SELECT count(*) FROM problem WHERE run = ? AND counted", (run,)))

    def forget_problems(self, run: int) -> None:
        """A run observes again: what it met before is met again, or is no more."""
        self._database.execute("DELETE FROM problem WHERE run = ?", (run,))


def _run(row: tuple[Any, ...]) -> Run:
    run = Run._make(row)
    return run._replace(counts=json.loads(row[Run._fields.index("counts")]))
