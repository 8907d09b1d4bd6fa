"""What runs in an executor: shards of content work. Plain functions of picklable values."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lbcore import _bulk
from lbcore.attributes import Wish, set_attributes
from lbcore.beneath import Root
from lbcore.copying import digest_of
from lbcore.keeping import Keeping
from lbcore.model import Attributes, Delivered, Delivery, NotDelivered, TransferItem, View
from lbcore.plugins.types import Transfer
from lbcore.reading import ChangedError, failure, unchanged

_TOGETHER = 256
"""Results handled together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliverShard:
    """Files to be brought into a folder of their own."""

    transfers: Sequence[Transfer]
    """Each file goes to the first that accepts it."""
    view: View
    keeping: Keeping
    items: Sequence[TransferItem]
    extras: Mapping[int, Mapping[str, bytes]]
    """Extended attributes and ACLs, by the number of the item that has any."""
    lb: bytes
    """Absolute path of the job's ``.lb``."""
    folder: bytes
    """Relative to ``lb``; made by the shard."""
    tree: bytes
    """Absolute path of the mirror."""
    privileged: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Deliveries:
    """What became of a shard."""

    results: Sequence[tuple[bytes, bool, Delivery]]
    """With the folder, relative to ``lb``, that the delivered path is relative to; True: it is in its place already."""
    refused: dict[str, int]
    """How often an attribute of this name was not taken by the target."""


def deliver(shard: DeliverShard) -> Deliveries:
    """Bring the content; give each file its attributes while nobody else can see it; set new files in place.

    :raises TargetError, OSError: when the target fails.
    """
    results: list[tuple[bytes, bool, Delivery]] = []
    refused: dict[str, int] = {}
    items = {item.obj: item for item in shard.items}
    away = {one.obj: one for one in shard.keeping.away(shard.view, shard.items)}
    results += [(shard.folder, False, one) for one in away.values()]
    waiting = [item for item in shard.items if item.obj not in away]
    os.mkdir(os.path.join(shard.lb, shard.folder), 0o700)
    for number, transfer in enumerate(shard.transfers):
        taken = [item for item in waiting if transfer.accepts(item)]
        if not taken:
            continue
        accepted = {item.obj for item in taken}
        waiting = [item for item in waiting if item.obj not in accepted]
        folder = b"%s/%d" % (shard.folder, number)
        os.mkdir(os.path.join(shard.lb, folder), 0o700)
        with Root(os.path.join(shard.lb, folder)) as root, Root(shard.tree) as tree:
            expected = _expected(transfer.deliver(shard.view, taken, root.path, shard.tree), accepted)
            while together := list(itertools.islice(expected, _TOGETHER)):
                delivered = [result for result in together if isinstance(result, Delivered)]
                short = [one for one in delivered if items[one.obj].basis is None and one.obj not in shard.extras]
                placed = _place(root, tree, short, items)
                for result in delivered:
                    if result.obj not in placed:
                        wish = _wish(items[result.obj].attributes, shard.extras.get(result.obj, {}))
                        _dress(root, result, wish, shard.privileged, refused)
                results += [(folder, result.obj in placed, result) for result in together]
        results += [
            (folder, False, NotDelivered(obj=obj, reason="the transfer said nothing about it")) for obj in accepted
        ]
    reason = 'no configured transfer takes it; add "copy" to the job\'s transfers'
    results += [(shard.folder, False, NotDelivered(obj=item.obj, reason=reason)) for item in waiting]
    return Deliveries(results=results, refused=refused)


def _expected(said: Iterable[Delivery], waiting: set[int]) -> Iterator[Delivery]:
    """One result for each of the numbers in ``waiting``, which it takes out; what else a transfer says is ignored."""
    for result in said:
        if result.obj in waiting:
            waiting.remove(result.obj)
            yield result


def _place(root: Root, tree: Root, delivered: Sequence[Delivered], items: Mapping[int, TransferItem]) -> set[int]:
    """The short way, many files in one call: of new files without extended attributes, to free names.

    Returns the numbers of those that are in place; the others take the long way.
    """
    placed: set[int] = set()
    numbers: list[int] = []
    files: list[tuple[int, bytes, int, bytes, int, int, int, int]] = []
    directories: set[int] = set()
    for result in delivered:
        _, path, _, now, _ = items[result.obj]
        if len(directories) >= Root.KEPT - 1:  # both look-ups may close one that is still needed
            placed |= _placed(numbers, files)
            numbers, files, directories = [], [], set()
        try:
            stage_fd, name = root.parent(result.path)
            directories.add(stage_fd)
            tree_fd, base = tree.parent(path)
            directories.add(tree_fd)
        except OSError:
            continue
        numbers.append(result.obj)
        files.append((stage_fd, name, tree_fd, base, now.mode, now.uid, now.gid, now.mtime_ns))
    return placed | _placed(numbers, files)


def _placed(numbers: list[int], files: list[tuple[int, bytes, int, bytes, int, int, int, int]]) -> set[int]:
    errors = _bulk.dress_and_place(files)
    return {number for number, error in zip(numbers, errors, strict=True) if not error}


def _wish(now: Attributes, extras: Mapping[str, bytes]) -> Wish:
    return Wish(mode=now.mode, uid=now.uid, gid=now.gid, mtime_ns=now.mtime_ns, extras=extras)


def _dress(root: Root, result: Delivered, wish: Wish, privileged: bool, refused: dict[str, int]) -> None:
    directory, name = root.parent(result.path)
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
    try:
        for attribute in set_attributes(fd, wish, privileged=privileged):
            refused[attribute] = refused.get(attribute, 0) + 1
    finally:
        os.close(fd)


@dataclass(frozen=True, kw_only=True, slots=True)
class DigestShard:
    """Files whose content is compared with the backup's by digest."""

    view: View
    keeping: Keeping
    items: Sequence[TransferItem]


def digest(shard: DigestShard) -> list[tuple[int, bytes] | NotDelivered]:
    """The xxh3-128 digest of each file's content in the view, or why there is none."""
    away = {one.obj: one for one in shard.keeping.away(shard.view, shard.items)}
    found: list[tuple[int, bytes] | NotDelivered] = [*away.values()]
    with Root(shard.view.root) as root:
        for item in shard.items:
            if item.obj in away:
                continue
            try:
                with unchanged(root, item, shard.view.by_id) as fd:
                    content = digest_of(fd)
                found.append((item.obj, content))
            except (ChangedError, OSError) as error:
                found.append(failure(item, error))
    return found
