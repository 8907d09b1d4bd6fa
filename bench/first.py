"""The first backup of a tree."""

from __future__ import annotations

import shutil

from bench.measure import Sample, middle, middle_cpu, run, spread
from bench.peers import DurableRsync, Lb, Peer
from bench.report import Result, say
from bench.workspace import Workspace, alternating, goal


def first_backup(workspace: Workspace) -> Result:
    """The first backup of a tree, until it is safely on disk."""
    source = workspace.tree()
    baseline = DurableRsync(source, workspace.folder("first"))
    samples: dict[str, list[Sample]] = {}
    run(("du", "-s", source), environment=baseline.environment)  # warm for all of them
    for turn in range(workspace.rounds):
        # Nothing is removed in between: ext4 is several times slower where many inodes were freed shortly before.
        folder = workspace.folder(f"first/{turn}")
        lbs = [Lb(source, folder, "copy"), Lb(source, folder, "rsync")]
        peers: list[Peer] = [DurableRsync(source, folder), *lbs] if DurableRsync.installed() else [*lbs[:1]]
        for peer in alternating(peers, turn):
            peer.clear()
            sample = peer.backup()
            say(f"  round {turn + 1}: {peer.label} {sample.seconds:.2f} s")
            samples.setdefault(peer.label, []).append(sample)
            if isinstance(peer, Lb):
                peer.expect(sample, errors=0)
                if turn == 0:
                    peer.check()
    shutil.rmtree(workspace.folder("first"))
    rows = []
    for peer in peers:
        own = samples[peer.label]
        beside = "1"
        if peer.label != baseline.label and baseline.label in samples:
            beside = goal(middle(own) / middle(samples[baseline.label]), 1.5)
        rate = f"{workspace.shape.files / middle(own):,.0f}"
        rows.append((peer.label, f"{middle(own):.2f}", spread(own), f"{middle_cpu(own):.2f}", rate, beside))
    return Result(
        name="first",
        title="First backup, durable",
        header=(
            "program",
            "seconds (median)",
            "fastest to slowest",
            "processor seconds",
            "files per second",
            "time by that of rsync + sync",
        ),
        rows=rows,
        notes=[
            f"{workspace.shape.files:,} files in {workspace.shape.directories:,} directories, 2 kB each.",
            f"{workspace.rounds} rounds, a fresh target each; order alternates; the source is in memory.",
            "`lb copy` and `lb rsync` are `lb run` with that transfer.",
        ],
    )
