"""Read a point in time from the files of a target, with plain SQL and none of the core's code."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
from dataclasses import dataclass, replace
from typing import Any

from lbcore.testing import Node, Tree
from lbcore.testing.trees import _KINDS, _content

_COLUMNS = "obj, mode, uid, gid, size, mtime_ns, rdev, link_target, extras, data_run"


@dataclass
class _Reader:
    connection: sqlite3.Connection
    target: bytes
    run: int

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, values).fetchall()

    def at(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        return self.rows(
            f"SELECT {columns} FROM {table} WHERE first_run <= ? UNION ALL "
            f"SELECT {columns} FROM {table}_past WHERE ? BETWEEN first_run AND last_run",
            self.run,
            self.run,
        )

    def content(self, obj: int, data_run: int, size: int) -> tuple[str, int, int]:
        """From the version, or from the mirror when that still holds it."""
        fan = b"%03d/%03d" % (obj // 1_000_000, obj // 1_000 % 1_000)
        path = self.target + b"/.lb/versions/%s/%d.%d" % (fan, obj, data_run)
        if not os.path.lexists(path):
            assert self.rows("SELECT 1 FROM object WHERE obj = ? AND data_run = ?", obj, data_run), (
                f"the content of object {obj} of run {data_run} is neither in the mirror nor among the versions"
            )
            path = self.target + b"/tree/" + self.path_now(obj)
        directory = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            assert os.lstat(path).st_size == size, path
            return _content(directory, os.path.basename(path), size)
        finally:
            os.close(directory)

    def path_now(self, obj: int) -> bytes:
        parts: list[bytes] = []
        while obj != 1:
            obj, name = self.rows("SELECT parent, name FROM name WHERE obj = ?", obj)[0]
            parts.insert(0, name)
        return b"/".join(parts)


def read_point(target: bytes, run: int) -> Tree:
    """The tree as it was at run number ``run``."""
    connection = sqlite3.connect(os.fsdecode(target + b"/.lb/job.db"))
    with contextlib.closing(connection):
        reader = _Reader(connection, target, run)
        names: dict[int, list[tuple[bytes, int]]] = {}
        for parent, name, obj in reader.at("name", "parent, name, obj"):
            names.setdefault(parent, []).append((name, obj))
        objects = {row[0]: row[1:] for row in reader.at("object", _COLUMNS)}
        nodes = {obj: _node(reader, obj, *row) for obj, row in objects.items()}
        assert sum(map(len, names.values())) == len({(parent, name) for parent in names for name, _ in names[parent]})
        tree: Tree = {}
        paths: dict[int, list[bytes]] = {}
        waiting = [(b"", 1)]
        while waiting:
            path, obj = waiting.pop()
            assert path not in tree, path
            tree[path] = nodes[obj]
            paths.setdefault(obj, []).append(path)
            for name, child in names.pop(obj, []):
                waiting.append((path + b"/" + name if path else name, child))
        assert not names, f"names in directories that are not in the tree: {names}"
        assert not objects.keys() - paths.keys(), f"objects without a name: {objects.keys() - paths.keys()}"
        for same in paths.values():
            if len(same) > 1:
                for path in same:
                    tree[path] = replace(tree[path], links=tuple(sorted(same)))
        return tree


def _node(
    reader: _Reader,
    obj: int,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime_ns: int,
    rdev: int,
    link_target: bytes | None,
    extras: int | None,
    data_run: int | None,
) -> Node:
    kind = stat.S_IFMT(mode)
    node = Node(
        kind=_KINDS[kind], mode=0 if kind == stat.S_IFLNK else stat.S_IMODE(mode), uid=uid, gid=gid, mtime_ns=mtime_ns
    )
    if extras is not None:
        ((data,),) = reader.rows("SELECT data FROM extras WHERE extras = ?", extras)
        found = {
            key[len("xattr:") :]: value.encode("latin-1")
            for key, value in json.loads(data).items()
            if key.startswith("xattr:")
        }
        node = replace(node, xattrs=tuple(sorted(found.items())))
    if kind == stat.S_IFREG:
        assert data_run is not None
        content, data_bytes, extents = reader.content(obj, data_run, size)
        return replace(node, size=size, content=content, data_bytes=data_bytes, extents=extents)
    if kind == stat.S_IFLNK:
        return replace(node, target=link_target or b"")
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        return replace(node, device=(os.major(rdev), os.minor(rdev)))
    return node
