"""What waits for content: steps of the plan, cut into shards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lbcore.apply.work import Work
from lbcore.catalog.steps import State, Step, What
from lbcore.model import Attributes, TransferItem

_SHARD_FILES = 2_000
_SHARD_BYTES = 256 << 20
_PAGE_ROWS = 10_000


class File(NamedTuple):
    """A file that waits for content."""

    item: TransferItem
    names: list[tuple[int, bytes]]
    """That it has, or gets, in the mirror; the first is the item's path, in the view and in the mirror."""
    extras: int | None
    step: Step | None
    """None for a new file, which has nothing that a step says and an item does not."""


def shards(work: Work, flag: int, workers: int) -> Iterator[list[File]]:
    """The waiting files, by number and size, and so that every worker has some."""
    waiting = work.catalog.plan.count(f"what & {flag:d} AND state < {State.DELIVERED:d}")
    most = max(32, min(_SHARD_FILES, waiting // (2 * workers) + 1))
    size = 0
    shard: list[File] = []
    for files in (_known(work, flag), new_files(work) if flag == What.DATA else ()):
        for file in files:
            shard.append(file)
            size += file.item.attributes.size
            if len(shard) >= most or size >= _SHARD_BYTES:
                yield shard
                shard, size = [], 0
    if shard:
        yield shard


def _known(work: Work, flag: int) -> Iterator[File]:
    """Files that the mirror has already."""
    after = 0
    while page := work.catalog.plan.known_content(flag, after, _PAGE_ROWS):
        after = page[-1].obj
        for step in page:
            names = work.catalog.names.of(step.obj)
            path = work.path(*names[0])
            _, object_id, mode, uid, gid, size, mtime_ns, ctime_ns, rdev, *_ = step
            attributes = Attributes(mode, uid, gid, 1, size, mtime_ns, ctime_ns, rdev)
            yield File(TransferItem(step.obj, path, object_id, attributes, path), names, step.extras, step)


def new_files(work: Work) -> Iterator[File]:
    """New files. A first backup is made of them, so that they come in one query, and by column."""
    after, file, directory, prefix = 0, None, 0, b""
    while page := work.catalog.plan.new_content(after, _PAGE_ROWS):
        after = page[-1][0]
        for obj, object_id, mode, uid, gid, size, mtime_ns, ctime_ns, rdev, extras, parent, name in page:
            if file is not None and file.item.obj == obj:
                file.names.append((parent, name))
                continue
            if file is not None:
                yield file
            if parent != directory:
                directory, prefix = parent, work.prefix(parent)
            attributes = Attributes(mode, uid, gid, 1, size, mtime_ns, ctime_ns, rdev)
            file = File(TransferItem(obj, prefix + name, object_id, attributes, None), [(parent, name)], extras, None)
    if file is not None:
        yield file
