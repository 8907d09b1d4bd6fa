"""A source, a mirror and a private folder, as the core gives them to a transfer."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import xxhash

from lb_rsync.options import RsyncOptions
from lb_rsync.transfer import RsyncTransfer
from lbcore import _posix
from lbcore.beneath import Root
from lbcore.model import Attributes, Delivered, Delivery, TransferItem, View


class Place:
    """Makes files, observes them and delivers them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.source, self.tree, self.folder = (os.fsencode(base / name) for name in ("source", "tree", "folder"))
        self.outside = os.fsencode(base / "outside")
        for path in (self.source, self.tree, self.outside):
            os.mkdir(path)
        os.mkdir(self.folder, 0o700)

    def write(self, path: bytes, content: bytes, below: bytes | None = None) -> bytes:
        """A file in the source (or ``below`` another folder); returns its absolute path."""
        full = (below or self.source) + b"/" + path
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(content)
        return full

    def item(self, path: bytes, obj: int = 1) -> TransferItem:
        """The file as it is now; its basis is the mirror's file of the same name."""
        with Root(self.source) as root:
            fields = _posix.look(root.fd, path)
        basis = path if os.path.lexists(self.tree + b"/" + path) else None
        return TransferItem(obj=obj, path=path, id=fields[0], attributes=Attributes(*fields[1:9]), basis=basis)

    def items(self, *paths: bytes) -> list[TransferItem]:
        return [self.item(path, obj) for obj, path in enumerate(paths, 1)]

    def start(self, items: Sequence[TransferItem], *, stable: bool = False, **options: Any) -> Iterator[Delivery]:
        transfer = RsyncTransfer(RsyncOptions(**options))
        return transfer.deliver(View(root=self.source, stable=stable), items, self.folder, self.tree)

    def deliver(self, *paths: bytes, **options: Any) -> dict[bytes, Delivery]:
        """Deliver files as they are now; the result for each path."""
        items = self.items(*paths)
        results = {result.obj: result for result in self.start(items, **options)}
        assert sorted(results) == [item.obj for item in items]
        return {item.path: results[item.obj] for item in items}

    def content(self, path: bytes) -> bytes:
        with open(self.folder + b"/" + path, "rb") as file:
            return file.read()

    def assert_delivered(self, results: dict[bytes, Delivery]) -> None:
        """Each file is there, whole, private, and its digest is that of its content."""
        for path, result in results.items():
            assert isinstance(result, Delivered), result
            assert result.path == path
            with open(self.source + b"/" + path, "rb") as file:
                content = file.read()
            assert self.content(path) == content
            assert result.digest == xxhash.xxh3_128_digest(content)
            assert stat.S_IMODE(os.lstat(self.folder + b"/" + path).st_mode) == 0o600

    def program(self, name: str, *lines: str) -> str:
        """A shell script to be run instead of rsync."""
        path = self.base / name
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)
        return str(path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
