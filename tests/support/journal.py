"""A detector whose feed is a file, for tests in which several processes read it: what is acknowledged is gone from it.

Registered by itself it reads ``$LB_TEST_JOURNAL``, in whichever process ``lb`` runs.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence

from lbcore import hookimpl
from lbcore.builtin.copy import Copy
from lbcore.model import Delivery, Hint, HintFlag, ObjectId, Observation, Seen, TransferItem, View
from lbcore.plugins.types import Collection, DetectorPlugin, Known, Source, TransferPlugin
from lbcore.scope import Scope
from tests.support.feed import Thing, walk

ALL = HintFlag.DATA | HintFlag.ATTRIBUTES | HintFlag.NAMES


class Journal:
    """The file, one line a record, and a plugin with the detector ``journal`` and the transfer ``doing``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.during: Callable[[], None] = lambda: None
        """Called once by the next transfer of content, in the middle of a run."""
        self.break_after: int | None = None
        """After so many hints the feed cannot be read on."""

    def add(self, object_id: ObjectId, flags: HintFlag = ALL, *, time_ns: int = 0) -> None:
        """An object may have changed."""
        self._append({"id": object_id.hex(), "flags": int(flags), "time_ns": time_ns})

    def lose(self, why: str) -> None:
        """The feed has a gap here."""
        self._append({"gap": why})

    def tell(self, cut_ns: int) -> None:
        """By the feed's clock it is so late now."""
        self._append({"cut_ns": cut_ns})

    def _append(self, record: dict[str, object]) -> None:
        with open(self.path, "a", encoding="ascii") as file:
            file.write(json.dumps({"index": self.last() + 1, **record}) + "\n")

    def records(self) -> list[dict[str, object]]:
        """What is not acknowledged."""
        try:
            with open(self.path, encoding="ascii") as file:
                return [json.loads(line) for line in file]
        except FileNotFoundError:
            return []

    def last(self) -> int:
        """Index of the last record."""
        try:
            with open(self.path + ".forgotten", encoding="ascii") as file:
                forgotten = int(file.read())
        except FileNotFoundError:
            forgotten = 0
        return max([forgotten, *(int(str(record["index"])) for record in self.records())])

    def forget(self, upto: int) -> None:
        """Acknowledged."""
        last, kept = self.last(), [record for record in self.records() if int(str(record["index"])) > upto]
        with open(self.path + ".forgotten", "w", encoding="ascii") as file:
            file.write(str(last))
        with open(self.path + ".new", "w", encoding="ascii") as file:
            file.writelines(json.dumps(record) + "\n" for record in kept)
        os.rename(self.path + ".new", self.path)

    @hookimpl
    def lb_register_detectors(self) -> Iterable[DetectorPlugin]:
        """``journal``."""
        yield DetectorPlugin(name="journal", summary="a file", create=lambda options: _Detector(self))

    @hookimpl
    def lb_register_transfers(self) -> Iterable[TransferPlugin]:
        """``doing``."""
        yield TransferPlugin(name="doing", summary="does something first", create=lambda options: _Doing(self))


class _Detector:
    complete = False

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def collect(self, source: Source, cursor: bytes | None, view: View | None = None) -> Collection:
        hints, gap, cut_ns = [], None, 0
        for record in self._journal.records():
            if int(str(record["index"])) <= int(cursor or 0):
                continue
            if "gap" in record:
                gap = str(record["gap"])
            elif "cut_ns" in record:
                cut_ns = int(str(record["cut_ns"]))
            else:
                flags, time_ns = HintFlag(int(str(record["flags"]))), int(str(record["time_ns"]))
                hints.append(Hint(id=bytes.fromhex(str(record["id"])), flags=flags, time_ns=time_ns))
        return Collection(hints=self._told(hints), cursor=b"%d" % self._journal.last(), gap=gap, cut_ns=cut_ns)

    def _told(self, hints: list[Hint]) -> Iterator[Hint]:
        yield from hints[: self._journal.break_after]
        if self._journal.break_after is not None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def peek(self, source: Source, cursor: bytes | None) -> Collection:
        return self.collect(source, cursor)

    def acknowledge(self, source: Source, cursor: bytes) -> None:
        self._journal.forget(int(cursor))

    def flush(self, source: Source, hints: Iterable[Hint]) -> dict[str, int]:
        return {}

    def observe(self, view: View, scope: Scope, known: Known, hints: Iterable[Hint]) -> Iterator[Seen]:
        now = walk(view.root, scope, content=False)
        for hint in hints:
            yield _seen(hint.id, now.get(hint.id))


def _seen(object_id: ObjectId, thing: Thing | None) -> Observation:
    if thing is None:
        return Observation(id=object_id, attributes=None)
    link = thing.content if stat.S_ISLNK(thing.attributes.mode) else None
    names = tuple(sorted(thing.names))
    return Observation(
        id=object_id, attributes=thing.attributes, names=names, link_target=link, extras=thing.extras
    )  # fmt: skip


class _Doing(Copy):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def deliver(self, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes) -> Iterator[Delivery]:
        during, self._journal.during = self._journal.during, lambda: None
        during()
        yield from super().deliver(view, items, folder, tree)


_of_environment = Journal(os.environ.get("LB_TEST_JOURNAL", os.devnull))
lb_register_detectors = _of_environment.lb_register_detectors
