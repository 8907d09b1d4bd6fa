"""A recorded scenario as rows that can be compared: what a real Lustre recorded, and what a simulated one does.

A FID becomes the role that its object has: the path under which it was first known, or ``?``. Times, indices, job ids
and NIDs are left out, and so is the parent where it may be another request's (section 9, item 14 of the reference).
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lb_lustre import fid
from lb_lustre.record import Record, Type, decode
from lbcore.model import ObjectId
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.recordings import FOLDER, reads

MDTS = range(2)
RECORDED_MASK = sorted(kind.name for kind in set(Type) - {Type.ATIME, Type.GXATR, Type.NOPEN})
"""What was recorded in all scenarios but ``m_defmask``."""
MAKING = frozenset({Type.CREAT, Type.MKDIR, Type.SLINK, Type.MKNOD})
NAMESPACE = MAKING | {Type.HLINK, Type.UNLNK, Type.RMDIR, Type.RENME, Type.MIGRT}
"""Records whose parents are to be trusted."""
_NONE = bytes(16)
_QUICK = ("sleep", "sync")
"""What scripts call to let time pass, which the simulator does not need."""


class Row(NamedTuple):
    """A record without what differs between two runs of the same commands."""

    type: str
    flags: int
    """The low 12 bits: those of the type."""
    target: bytes
    parent: bytes = b""
    name: bytes = b""
    source: bytes = b""
    source_parent: bytes = b""
    source_name: bytes = b""
    xattr: bytes | None = None
    opened: int | None = None
    """The low 12 bits of the open flags."""

    @property
    def object(self) -> bytes:
        """What the record is about; of a renaming what moved."""
        return self.source if self.type == "RENME" else self.target


Found = tuple[dict[ObjectId, bytes], list[tuple[int, Record]]]
"""A path of each object that was there before; and the records, each with its server, in the order of their times."""


def recorded(scenario: str) -> Found:
    """What a real Lustre had and recorded."""
    paths: dict[ObjectId, bytes] = {}
    for line in (FOLDER / f"{scenario}.before.jsonl").read_text().splitlines():
        node = json.loads(line)
        _first(paths, fid.parse(node["fid"]), bytes.fromhex(node["path_hex"]))
    first = json.loads((FOLDER / f"{scenario}.meta.json").read_text())
    records = [
        (mdt, record)
        for mdt in MDTS
        for name in (f"{scenario}.part1.mdt{mdt}.bin", f"{scenario}.mdt{mdt}.bin")
        if (FOLDER / name).exists()
        for data in reads(name)
        for record in decode(data)
        if record.index >= first[f"mdt{mdt}_first_index"]
    ]
    return paths, sorted(records, key=lambda one: one[1].time_ns)


def simulated(scenario: str, lustre: Simulated, folder: Path) -> Found:
    """What a simulated Lustre has and records when the same scripts run on it.

    :param folder: an empty one, for what the scripts need and leave.
    """
    top = lustre.root / scenario
    for mdt in MDTS:
        lustre.ask("register", mdt=mdt, mask=None if scenario == "m_defmask" else RECORDED_MASK)
    programs, kept = folder / "bin", folder / "kept"
    programs.mkdir()
    kept.mkdir()
    for name in _QUICK:
        (programs / name).symlink_to("/bin/true")
    # The recorder's own program that dumps a changelog.
    (programs / "cldump").write_text('#!/bin/sh\nexec cat "$LB_SIMULATED_LUSTRE/dev/changelog-$1"\n')
    (programs / "cldump").chmod(0o700)
    environment = {**os.environ, "T": str(top), "PATH": f"{programs}:{os.environ['PATH']}"}

    def run(script: str) -> None:
        text = (FOLDER / script).read_bytes()
        for old, new in {
            b"/mnt/labfs": os.fsencode(lustre.root),
            b"labfs": b"simfs",
            b"/root/tools/": b"",
            b"/root/rec": bytes(kept),
            b"count=1024": b"count=4",  # a file of a gigabyte tells no more than a smaller one
        }.items():
            text = text.replace(old, new)
        with open(folder / "out", "ab") as out:
            subprocess.run(["bash", "-c", text], env=environment, stdout=out, stderr=out, check=False, timeout=120)

    top.mkdir(mode=0o755)
    run(f"{scenario}.setup.sh")
    paths = dict(_tree(lustre.root, top))
    top.stat()  # a close(2) is told to the simulator later, but before what follows it
    before = lustre.last()
    run(f"{scenario}.sh")
    records = []
    for mdt in MDTS:
        part = kept / f"{scenario}.part1.mdt{mdt}.bin"
        data = (part.read_bytes() if part.exists() else b"") + _dump(lustre.devices / f"changelog-simfs-MDT{mdt:04x}")
        records += [(mdt, record) for record in decode(data) if record.index > before[mdt]]
    return paths, sorted(records, key=lambda one: one[1].time_ns)


def _dump(device: Path) -> bytes:
    """All records; a read that has no room for the next one would be taken for the end (section 2)."""
    descriptor = os.open(device, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 1 << 18), b""))
    finally:
        os.close(descriptor)


def _first(paths: dict[ObjectId, bytes], object_id: ObjectId, path: bytes) -> None:
    paths[object_id] = min(path, paths.get(object_id, path))


def _tree(root: Path, top: Path) -> Iterator[tuple[ObjectId, bytes]]:
    """All there is, read as the recorder did: files and directories are opened."""
    paths: dict[ObjectId, bytes] = {fid.ROOT: b"."}
    _first(paths, _fid(bytes(top)), bytes(top.relative_to(root)))
    for folder, folders, files in os.walk(bytes(top)):
        for name in folders + files:
            path = os.path.join(folder, name)
            _first(paths, _fid(path), os.path.relpath(path, bytes(root)))
            if name in files and os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    file.read(1)
    yield from paths.items()


def _fid(path: bytes) -> ObjectId:
    return fid.pack(*struct.unpack_from("<QII", os.getxattr(path, "trusted.lma", follow_symlinks=False), 8))


def rows(found: Found) -> list[Row]:
    """The records as rows, as time went."""
    paths, records = found
    roles = dict(paths)
    used = Counter(roles.values())

    def role(object_id: ObjectId) -> bytes:
        if object_id == _NONE:
            return b""
        return roles.get(object_id, b"?")

    def named(object_id: ObjectId, path: bytes) -> None:
        used[path] += 1
        roles[object_id] = path if used[path] == 1 else b"%s#%d" % (path, used[path])

    taken = []
    for _, record in records:
        if record.type in MAKING:
            named(record.target, role(record.parent) + b"/" + record.name)
        elif record.type == Type.MIGRT and record.source not in (None, record.target):
            assert record.source is not None
            named(record.target, role(record.source))
        trusted = record.type in NAMESPACE
        taken.append(
            Row(
                Type(record.type).name, record.type_flags, role(record.target),
                role(record.parent) if trusted else b"", record.name,
                role(record.source or _NONE), role(record.source_parent), record.source_name, record.xattr,
                None if record.open_flags is None else record.open_flags & 0xFFF,
            )
        )  # fmt: skip
    return taken


def by_object(taken: Iterable[Row]) -> dict[bytes, list[Row]]:
    """The rows of each object, in their order."""
    objects: dict[bytes, list[Row]] = {}
    for row in taken:
        objects.setdefault(row.object, []).append(row)
    return objects
