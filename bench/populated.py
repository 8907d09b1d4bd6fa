"""The first backup of a simulated Lustre as it was populated, without reading it through its mount.

A mount by FUSE answers some thousand requests a second, and a first backup makes some ten for each file. So the
simulator tells what it has, and the empty files are made in the mirror without opening those of the source; all the
rest is what ``lb run`` does. The state is what a first run would have left, but for the values of the fingerprints, by
which a later scan would pass by directories that did not change.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import xxhash

from lb_lustre import fid
from lb_lustre.looking import Looking
from lb_lustre.simulator import client
from lbcore.config.job import Chosen
from lbcore.model import (
    Attributes,
    Delivered,
    Delivery,
    Hint,
    Listing,
    ObjectId,
    Observation,
    Seen,
    TransferItem,
    View,
)
from lbcore.plugins.types import Collection, Detector, DetectorPlugin, Known, NoOptions, Source, TransferPlugin
from lbcore.progress import Progress
from lbcore.run import JobRun, Options, Outcome
from lbcore.scope import Scope
from lbcore.source import look_at_root
from lbcore.testing.job import Job

_EMPTY = xxhash.xxh3_128_digest(b"")
_NO_FINGERPRINT = 0
"""In the place of one: a scan compares the directory."""


def back_up_populated(job: Job, control: str) -> Outcome:
    """The first run of a job whose source is the whole simulated filesystem as the request ``populate`` made it.

    :param control: the simulator's socket.
    """
    chosen = job.config.detector
    feed: Detector = chosen.registration.create(chosen.options)
    detector = DetectorPlugin(name="populated", summary="what was made", create=lambda _: _Populated(feed, control))
    transfer = TransferPlugin(name="empty", summary="empty files", create=lambda _: _Empty())
    config = dataclasses.replace(
        job.config,
        detector=Chosen(name=detector.name, registration=detector, options=NoOptions()),
        transfers=(Chosen(name=transfer.name, registration=transfer, options=NoOptions()),),
        extras=(),  # they come with the observations; before content is brought nobody asks for them once more
    )
    return JobRun(config, job.plugins, Options(), Progress()).run()


class _Populated:
    """The job's own detector, but for the first look at everything."""

    complete = True

    def __init__(self, feed: Detector, control: str) -> None:
        self._feed = feed
        self._control = control

    def collect(self, source: Source, cursor: bytes | None, view: View | None = None) -> Collection:
        """As the job's detector."""
        return self._feed.collect(source, cursor, view)

    def acknowledge(self, source: Source, cursor: bytes) -> None:
        """As the job's detector."""
        self._feed.acknowledge(source, cursor)

    def flush(self, source: Source, hints: Iterable[Hint]) -> Mapping[str, int]:
        """As the job's detector."""
        return self._feed.flush(source, hints)

    def observe(self, view: View, scope: Scope, known: Known, hints: Iterable[Hint]) -> Iterator[Seen]:
        """Everything. What was populated was made alike, so the extras of one object of each kind are those of all."""
        looking = Looking(view, scope)
        extras: dict[int, Mapping[str, bytes]] = {}
        root, _ = look_at_root(view.root)
        waiting = deque([(root, b"")])
        while waiting:
            directory, path = waiting.popleft()
            for name, object_id, now in self._entries(path):
                if now.kind not in extras:
                    like = looking.look(object_id)
                    assert isinstance(like, Observation)
                    extras[now.kind] = like.extras
                yield Observation(id=object_id, attributes=now, names=((directory, name),), extras=extras[now.kind])
                if stat.S_ISDIR(now.mode):
                    waiting.append((object_id, os.path.join(path, name)))
            # In a first backup there is no name to be missed: this only says that the directory was listed.
            yield Listing(directory=directory, path=path, entries=[], fingerprint=_NO_FINGERPRINT)

    def _entries(self, path: bytes) -> Iterator[tuple[bytes, ObjectId, Attributes]]:
        for name, number, there in client.ask(self._control, "entries", path=os.fsdecode(path)):
            yield (
                os.fsencode(name), fid.parse(number),
                Attributes(
                    mode=there["st_mode"], uid=there["st_uid"], gid=there["st_gid"], nlink=there["st_nlink"],
                    size=there["st_size"], mtime_ns=there["st_mtime"], ctime_ns=there["st_ctime"], rdev=0,
                ),
            )  # fmt: skip


class _Empty:
    """Brings empty files, which nobody has to read."""

    def accepts(self, item: TransferItem) -> bool:
        """Whether it is one."""
        return not item.attributes.size

    def deliver(self, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes) -> Iterator[Delivery]:
        """Make each file in ``folder``."""
        for item in items:
            name = b"%d" % item.obj
            os.close(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            yield Delivered(obj=item.obj, path=name, digest=_EMPTY, sent_bytes=0)
