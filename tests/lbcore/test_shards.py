"""What a worker does with a shard, where there are more directories than it keeps open."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import xxhash

from lbcore.apply.shards import DeliverShard, deliver
from lbcore.keeping import Keeping
from lbcore.model import Attributes, Delivered, Delivery, TransferItem, View


class UnderTheirPaths:
    """Delivers each file below a folder of its own, twice as often as asked."""

    def accepts(self, item: TransferItem) -> bool:
        return True

    def deliver(self, view: View, items: Sequence[TransferItem], folder: bytes, tree: bytes) -> Iterator[Delivery]:
        for item in items:
            path = os.path.join(folder, item.path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(item.path)
        for item in [*items, *items]:
            yield Delivered(obj=item.obj, path=item.path, digest=xxhash.xxh3_128_digest(item.path), sent_bytes=0)


def test_each_file_gets_its_own_content_also_where_directories_of_the_mirror_are_missing(tmp_path: Path) -> None:
    tree, stage = tmp_path / "tree", tmp_path / ".lb" / "stage"
    tree.mkdir()
    stage.mkdir(parents=True)
    items = []
    for number in range(300):
        path = b"%d/index" % number
        if number % 4 == 3:
            (tree / f"{number}").mkdir()
        attributes = Attributes(0o100644, os.geteuid(), os.getegid(), 1, len(path), number, number, 0)
        items.append(TransferItem(number, path, b"", attributes, None))

    done = deliver(
        DeliverShard(
            transfers=[UnderTheirPaths()],
            keeping=Keeping(),
            view=View(root=b"/", stable=True),
            items=items,
            extras={},
            lb=os.fsencode(tmp_path / ".lb"),
            folder=b"stage/0",
            tree=os.fsencode(tree),
            privileged=os.geteuid() == 0,
        )
    )

    assert sorted(result.obj for _, _, result in done.results) == list(range(300))
    for folder, placed, result in done.results:
        assert isinstance(result, Delivered)
        assert placed == (result.obj % 4 == 3)
        at = tree if placed else tmp_path / ".lb" / os.fsdecode(folder)
        assert (at / f"{result.obj}" / "index").read_bytes() == b"%d/index" % result.obj
