"""Peak memory of ``lb run`` while the number of files grows."""

from __future__ import annotations

import os
import shutil
import time

from bench.measure import Sample, run
from bench.peers import Lb
from bench.report import Result, say
from bench.trees import Shape, grow, rewrite
from bench.workspace import SETTLE_SECONDS, Workspace

FILES_PER_DIRECTORY = 100
FILLED = 4
"""Every fourth file has content."""
LIMIT_BYTES = 150e6
FLAT = 1.25
"""The most that the peak at the largest number may be, by that at the smallest."""


def peak_memory(workspace: Workspace) -> Result:
    """A first and an incremental backup at each number of files."""
    folder = workspace.folder("memory")
    source = workspace.folder("memory/tree")
    most = max(workspace.memory_files)
    # One layout for all sizes: the tree of the smaller one is a part of that of the larger one.
    layout = Shape(files=most, directories=-(-most // FILES_PER_DIRECTORY), filled=FILLED)
    samples: list[tuple[int, str, Sample]] = []
    already = 0
    for files in sorted(workspace.memory_files):
        shape = Shape(files=files, directories=-(-files // layout.per_directory), filled=FILLED)
        say(f"  making {files:,} files")
        grow(source, shape, already)
        already = files
        lb = Lb(source, folder)
        lb.clear()
        for what in ("first backup", f"{workspace.changes} files changed"):
            if what != "first backup":
                rewrite(source, shape, workspace.changes, 1)
                time.sleep(SETTLE_SECONDS)
            sample = lb.backup(sample_memory=True)
            lb.expect(sample, errors=0)
            samples.append((files, what, sample))
            say(f"  {files:,} files, {what}: {sample.peak_bytes / 1e6:.0f} MB, {sample.seconds:.1f} s")
        shutil.rmtree(lb.scratch)
    floor = run(("true",), environment=os.environ).peak_bytes
    shutil.rmtree(folder)
    peak = max(sample.peak_bytes for _, _, sample in samples)
    rows = [
        (
            f"{files:,}",
            what,
            f"{sample.peak_bytes / 1e6:.0f}",
            f"{sample.tree_peak_bytes / 1e6:.0f}",
            f"{sample.seconds:.1f}",
        )
        for files, what, sample in samples
    ]
    growths = []
    for what in dict.fromkeys(what for _, what, _ in samples):
        peaks = [sample.peak_bytes for _, kind, sample in samples if kind == what]
        growths.append(peaks[-1] / peaks[0])
    return Result(
        name="memory",
        title="Peak memory",
        header=("files", "backup", "largest process (MB)", "all its processes (MB)", "seconds"),
        rows=rows,
        notes=[
            f"largest process: {peak / 1e6:.0f} MB "
            f"(goal < {LIMIT_BYTES / 1e6:.0f}: {'met' if peak < LIMIT_BYTES else 'MISSED'}).",
            f"{max(workspace.memory_files):,} files by {min(workspace.memory_files):,} files: "
            f"{', '.join(f'{growth:.2f}' for growth in growths)} "
            f"(goal ≤ {FLAT}: {'met' if max(growths) <= FLAT else 'MISSED'}).",
            f"largest process: the kernel's own account (never below {floor / 1e6:.0f} MB here).",
            "all its processes: looked at ten times a second, shared pages counted once.",
        ],
    )
