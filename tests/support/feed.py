"""A detector with a feed, for tests: it tells which objects changed, and looks at objects by their id.

The feed is the difference between two walks of the source by code of its own, so that whatever the core
concludes from hints is not concluded from the walk that the hints came from.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lbcore import _posix, hookimpl
from lbcore.model import Attributes, Hint, HintFlag, ObjectId, Observation, Seen, Unreadable, View
from lbcore.plugins.types import Collection, DetectorPlugin, Known, Source
from lbcore.scope import Scope

_READ_BYTES = 4 << 20
"""Changes of larger files are noticed by their times."""


@dataclass(slots=True)
class Thing:
    """One object: what a feed by id can say of it."""

    attributes: Attributes
    extras: dict[str, bytes]
    content: bytes
    """Of a file, or the target of a symbolic link."""
    names: set[tuple[ObjectId, bytes]] = field(default_factory=set)
    path: bytes = b""


State = dict[ObjectId, Thing]


def walk(root: bytes, scope: Scope | None = None, *, content: bool = True) -> State:
    """Every object below ``root`` by id, with all its names."""
    state: State = {}
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fields = _posix.look(top, b"")
    finally:
        os.close(top)
    state[fields[0]] = Thing(Attributes._make(fields[1:9]), _extras(root), b"")
    waiting = [(root, b"", fields[0])]
    while waiting:
        directory, relative, directory_id = waiting.pop()
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in map(os.fsencode, os.listdir(fd)):
                found = _posix.look(fd, name)
                attributes, path = Attributes._make(found[1:9]), os.path.join(directory, name)
                below = os.path.join(relative, name)
                is_directory = stat.S_ISDIR(attributes.mode)
                if scope is not None and scope.excludes(below, is_directory):
                    continue
                thing = state.setdefault(found[0], Thing(attributes, _extras(path), b"", path=below))
                thing.names.add((directory_id, name))
                if is_directory:
                    waiting.append((path, below, found[0]))
                elif stat.S_ISLNK(attributes.mode):
                    thing.content = os.readlink(path)
                elif stat.S_ISREG(attributes.mode) and content and attributes.size <= _READ_BYTES:
                    with open(path, "rb") as file:
                        thing.content = file.read()
        finally:
            os.close(fd)
    return state


def _extras(path: bytes) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {f"xattr:{name}": os.getxattr(path, name, follow_symlinks=False) for name in names}


class Feed:
    """A plugin with the detector ``feed``. It lives as long as the job and remembers the source it saw last."""

    def __init__(self, *, seed: int | None = None, sparse: bool = False) -> None:
        """
        :param seed: shuffle the hints, double them, and add some that mean nothing.
        :param sparse: name only the top of what came into the source or left it, as a feed does when a
            directory is moved over the source's border.
        """
        self.random = None if seed is None else random.Random(seed)
        self.sparse = sparse
        self.states: dict[bytes, State] = {}
        self.gap: str | None = None
        """Set this, and the next collection says that the feed has a gap."""
        self.forgets: Callable[[ObjectId], bool] = lambda object_id: False
        """Which objects it never mentions, though it should."""
        self.unreadable: Callable[[ObjectId], bool] = lambda object_id: False
        """Which objects cannot be looked at."""
        self.observed: list[ObjectId] = []
        """What the core asked for since the test cleared this."""
        self.meddle: Callable[[int], None] = lambda count: None
        """Called after each observation with how many there were: the source may change meanwhile."""

    @hookimpl
    def lb_register_detectors(self) -> Iterable[DetectorPlugin]:
        """``feed``."""
        yield DetectorPlugin(name="feed", summary="a feed for tests", create=lambda options: _Detector(self))


class _Detector:
    complete = False

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def collect(self, source: Source, cursor: bytes | None, view: View | None = None) -> Collection:
        feed = self._feed
        now = walk(source.path)
        before = feed.states.get(cursor, {}) if cursor else {}
        hints = list(_hints(before, now, sparse=feed.sparse))
        if feed.random is not None:
            hints += feed.random.choices(hints, k=len(hints)) if hints else []
            hints += [Hint(id=feed.random.randbytes(16), flags=HintFlag(7), time_ns=0) for _ in range(3)]
            feed.random.shuffle(hints)
        hints = [hint for hint in hints if not feed.forgets(hint.id)]
        gap, feed.gap = feed.gap, None
        position = b"%d" % (int(cursor or 0) + 1)
        feed.states[position] = now
        return Collection(hints=hints, cursor=position, gap=gap)

    def peek(self, source: Source, cursor: bytes | None) -> Collection:
        feed = self._feed
        before = (dict(feed.states), feed.gap)
        found = self.collect(source, cursor)
        feed.states, feed.gap = before
        return found

    def acknowledge(self, source: Source, cursor: bytes) -> None:
        self._feed.states = {key: state for key, state in self._feed.states.items() if int(key) >= int(cursor)}

    def flush(self, source: Source, hints: Iterable[Hint]) -> Mapping[str, int]:
        return {}

    def observe(self, view: View, scope: Scope, known: Known, hints: Iterable[Hint]) -> Iterator[Seen]:
        now = walk(view.root, scope, content=False)
        for hint in hints:
            self._feed.observed.append(hint.id)
            thing = now.get(hint.id)
            self._feed.meddle(len(self._feed.observed))
            if self._feed.unreadable(hint.id):
                yield Unreadable(path=hint.id.hex().encode(), reason="not today", object=hint.id)
            elif thing is None:
                yield Observation(id=hint.id, attributes=None)
            else:
                yield Observation(
                    id=hint.id,
                    attributes=thing.attributes,
                    names=tuple(sorted(thing.names)),
                    link_target=thing.content if stat.S_ISLNK(thing.attributes.mode) else None,
                    extras=thing.extras,
                )


def _hints(before: State, now: State, *, sparse: bool) -> Iterator[Hint]:
    """Everything that is not as it was, and the directories whose names changed."""
    flags: dict[ObjectId, HintFlag] = {}

    def add(object_id: ObjectId, flag: HintFlag) -> None:
        flags[object_id] = flags.get(object_id, HintFlag(0)) | flag

    for object_id in before.keys() | now.keys():
        was, thing = before.get(object_id), now.get(object_id)
        if was is None or thing is None:
            there = was or thing
            assert there is not None
            other = now if was is None else before
            inside = all(parent in other and _appeared(parent, before, now) for parent, _ in there.names)
            if sparse and there.names and inside:
                continue
            add(object_id, HintFlag.NAMES | HintFlag.DATA | HintFlag.ATTRIBUTES)
            names = there.names
        else:
            if was.content != thing.content:
                add(object_id, HintFlag.DATA)
            if was.attributes != thing.attributes or was.extras != thing.extras:
                add(object_id, HintFlag.ATTRIBUTES)
            names = was.names ^ thing.names
            if names:
                add(object_id, HintFlag.NAMES)
        for parent, _ in names:
            add(parent, HintFlag.ATTRIBUTES)
    for object_id in sorted(flags):
        yield Hint(id=object_id, flags=flags[object_id], time_ns=0)


def _appeared(object_id: ObjectId, before: State, now: State) -> bool:
    """Whether it came or went."""
    return (object_id in before) != (object_id in now)
