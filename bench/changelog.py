"""Changelog records reduced to FIDs: records a second on one core, and memory for each FID."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator

from bench.report import Result, say
from bench.workspace import Workspace, goal
from lb_lustre import fid
from lb_lustre._records import Reduction, Stream
from lb_lustre.record import Record, Type

_TOGETHER = 4_000
"""Records in one buffer: some hundred kilobytes, as a read of the device gives."""
_KINDS = (Type.CREAT, Type.CLOSE, Type.CLOSE, Type.SATTR, Type.UNLNK)
"""Records of a working filesystem: mostly files written, some made, some removed."""
_OBJECT_ID_AT = 40
"""Where in a record the object id of its target is."""


class _Buffers:
    """Buffers of records whose targets are drawn at random, made faster than they are reduced."""

    def __init__(self, fids: int) -> None:
        self._fids = fids
        self._chance = random.Random(1)  # noqa: S311 - not for secrets
        records = [
            Record(
                type=_KINDS[number % len(_KINDS)], index=number, time_ns=1_795_309_440_000_000_000 + number * 1000,
                target=fid.pack(0x200000BD1, 0, 0), parent=fid.pack(0x200000BD1, number % 997, 0), name=b"results.dat",
                jobid=b"python3.1000", owner=(1000, 1000), nid=bytes(24),
            ).encode()
            for number in range(_TOGETHER)
        ]  # fmt: skip
        self._size = len(records[0])
        assert {len(one) for one in records} == {self._size}
        self._data = bytearray(b"".join(records))

    def make(self, count: int) -> Iterator[bytearray]:
        """Buffers of ``count`` records together, the same one filled anew."""
        for _ in range(0, count, _TOGETHER):
            numbers = self._chance.choices(range(self._fids), k=_TOGETHER)
            packed = b"".join(map(_UINT32, numbers))
            for byte in range(4):
                self._data[_OBJECT_ID_AT + byte :: self._size] = packed[byte::4]
            yield self._data


def _UINT32(number: int) -> bytes:  # noqa: N802 - a conversion, called like a type
    return number.to_bytes(4, "little")


def reduced_records(workspace: Workspace) -> Result:
    """Reduce many records over few FIDs, and over as many as a large site changes in a day."""
    rows = []
    rates: list[float] = []
    for fids in (workspace.changelog_fids // 1000, workspace.changelog_fids):
        say(f"  reducing {workspace.changelog_records:,} records over {fids:,} FIDs")
        reduction, stream = Reduction(), Stream()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = 0.0
        for buffer in _Buffers(fids).make(workspace.changelog_records):
            started = time.perf_counter()
            reduction.feed(buffer, stream)
            seconds += time.perf_counter() - started
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rates.append(stream.records / seconds)
        started = time.perf_counter()
        hints = sum(1 for _ in reduction.hints())
        rows.append(
            (
                f"{len(reduction):,}",
                f"{rates[-1] / 1e6:.1f}",
                f"{reduction.memory_bytes / len(reduction):.1f}",
                f"{(peak_kib - before) / 1024:.0f}",
                f"{hints / (time.perf_counter() - started) / 1e6:.1f}",
            )
        )
    return Result(
        name="changelog",
        title=f"{workspace.changelog_records:,} changelog records reduced",
        header=(
            "distinct FIDs", "million records per second", "bytes per FID", "growth of the process, MiB",
            "million hints per second",
        ),
        rows=rows,
        notes=[
            f"slowest: {goal(5e6 / min(rates), 1)} of the time of 5 million records a second, on one core.",
            "each record names its file and its directory; the time is that of reducing alone, of buffers in memory.",
            "hints are read in the order of their ids, as they enter the catalog.",
        ],
    )  # fmt: skip
