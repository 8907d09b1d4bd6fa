"""What runs in an executor: shards of content work. Plain functions of picklable values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from lbcore import _posix
from lbcore.attributes import Wish, set_attributes
from lbcore.beneath import Root
from lbcore.copying import digest_of
from lbcore.model import Delivered, Delivery, NotDelivered, TransferItem, View
from lbcore.plugins.types import Transfer
from lbcore.reading import ChangedError, check_unchanged, failure, open_unchanged


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliverShard:
    """Files to be brought into a folder of their own."""

    transfers: Sequence[Transfer]
    """Each file goes to the first that accepts it."""
    view: View
    items: Sequence[TransferItem]
    wishes: Sequence[Wish]
    """The attributes of each item."""
    places: Sequence[bytes | None]
    """Where each item goes in the mirror when it is new; None for one that is there already."""
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
    places = {item.obj: place for item, place in zip(shard.items, shard.places, strict=True)}
    wishes = {item.obj: wish for item, wish in zip(shard.items, shard.wishes, strict=True)}
    waiting = list(shard.items)
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
            for result in transfer.deliver(shard.view, taken, root.path, shard.tree):
                if result.obj not in accepted:
                    continue
                accepted.remove(result.obj)
                wish, place = wishes[result.obj], places[result.obj]
                done = isinstance(result, Delivered) and place and _place(root, result.path, wish, tree, place)
                if isinstance(result, Delivered) and not done:
                    _dress(root, result, wish, shard.privileged, refused)
                results.append((folder, bool(done), result))
        results += [
            (folder, False, NotDelivered(obj=obj, reason="the transfer said nothing about it")) for obj in accepted
        ]
    reason = 'no configured transfer takes it; add "copy" to the job\'s transfers'
    results += [(shard.folder, False, NotDelivered(obj=item.obj, reason=reason)) for item in waiting]
    return Deliveries(results=results, refused=refused)


def _place(root: Root, path: bytes, wish: Wish, tree: Root, place: bytes) -> bool:
    """The short way of a new file without extended attributes to a free name; False where it takes the long one."""
    if wish.extras:
        return False
    try:
        stage_fd, name = root.parent(path)
        tree_fd, base = tree.parent(place)
    except OSError:
        return False
    return _posix.dress_and_place(stage_fd, name, tree_fd, base, wish.mode, wish.uid, wish.gid, wish.mtime_ns) == 0


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
    items: Sequence[TransferItem]


def digest(shard: DigestShard) -> list[tuple[int, bytes] | NotDelivered]:
    """The xxh3-128 digest of each file's content in the view, or why there is none."""
    found: list[tuple[int, bytes] | NotDelivered] = []
    with Root(shard.view.root) as root:
        for item in shard.items:
            try:
                fd = open_unchanged(root, item)
                try:
                    found.append((item.obj, digest_of(fd)))
                    check_unchanged(fd, item)
                finally:
                    os.close(fd)
            except (ChangedError, OSError) as error:
                if found and not isinstance(found[-1], NotDelivered) and found[-1][0] == item.obj:
                    found.pop()
                found.append(failure(item, error))
    return found
