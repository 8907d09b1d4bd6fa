"""Backups of a tree that was backed up before: a few files changed, or a directory renamed."""

from __future__ import annotations

import os
import shutil
import time

from bench.measure import Sample, middle, middle_cpu, spread
from bench.peers import Borg, Lb, Peer, Restic, Rsync
from bench.report import Result, say
from bench.trees import flat
from bench.workspace import SETTLE_SECONDS, Workspace, alternating, goal

LIMITS = {"rsync": 1.3, "restic": 0.5, "borg": 0.5}
"""The time of ``lb run`` by that of each peer is to be at most this."""


def changed_files(workspace: Workspace) -> Result:
    """A whole backup after a few files changed, caches warm."""
    source = workspace.tree()
    folder = workspace.folder("incremental")
    kinds: list[type[Peer]] = [Rsync, Restic, Borg]
    missing = [kind.name for kind in kinds if not kind.installed()]
    lb = Lb(source, folder)
    peers = [lb, *(kind(source, folder) for kind in kinds if kind.name not in missing)]
    for peer in peers:
        say(f"  first backup by {peer.label}")
        peer.clear()
        peer.backup()
    samples: dict[str, list[Sample]] = {peer.label: [] for peer in peers}
    for turn in range(workspace.rounds + 1):
        workspace.change()
        for peer in alternating(peers, turn):
            sample = peer.backup()
            say(f"  {'warm-up' if turn == 0 else f'round {turn}'}: {peer.label} {sample.seconds:.2f} s")
            if peer is lb:
                lb.expect(sample, files_copied=workspace.changes)
            if turn > 0:  # the first only fills the caches
                samples[peer.label].append(sample)
    lb.check()
    shutil.rmtree(folder)
    lb_seconds = middle(samples[lb.label])
    rows = []
    for peer in peers:
        own = samples[peer.label]
        ratio = lb_seconds / middle(own)
        beside = goal(ratio, LIMITS[peer.name]) if peer.name in LIMITS else "1"
        rows.append((peer.label, f"{middle(own):.2f}", spread(own), f"{middle_cpu(own):.2f}", beside))
    return Result(
        name="incremental",
        title=f"{workspace.changes} of {workspace.shape.files:,} files changed",
        header=(
            "program",
            "seconds (median)",
            "fastest to slowest",
            "processor seconds",
            "lb's time by its time",
        ),
        rows=rows,
        notes=[
            f"{workspace.shape.files:,} files in {workspace.shape.directories:,} directories, "
            f"{workspace.changes} rewritten before each of {workspace.rounds} rounds.",
            "Warm caches; the order of the programs alternates.",
            "lb waits until its backup is on disk; rsync does not, and keeps no earlier state.",
            *_left_out(missing),
        ],
    )


def renamed_directory(workspace: Workspace) -> Result:
    """A backup after a directory of many files got another name, beside one after nothing changed."""
    source = workspace.tree()
    folder = workspace.folder("rename")
    name = os.path.join(source, "results")
    flat(name, workspace.renamed_files)
    lb, rsync = Lb(source, folder), Rsync(source, folder)
    peers: list[Peer] = [lb, rsync] if Rsync.installed() else [lb]
    for peer in peers:
        say(f"  first backup by {peer.label}")
        peer.clear()
        peer.backup()
        peer.backup()  # settled: nothing is left to be looked at again
    quiet: dict[str, list[Sample]] = {peer.label: [] for peer in peers}
    renamed: dict[str, list[Sample]] = {peer.label: [] for peer in peers}
    copied = 0
    for turn in range(workspace.rounds):
        for samples in alternating((quiet, renamed), turn):
            if samples is renamed:
                new = os.path.join(source, f"results-{turn}")
                os.rename(name, new)
                name = new
            time.sleep(SETTLE_SECONDS)
            for peer in alternating(peers, turn):
                sample = peer.backup()
                say(f"  round {turn + 1}: {peer.label} {sample.seconds:.2f} s")
                samples[peer.label].append(sample)
                if peer is lb:
                    copied += int(lb.summary(sample)["bytes_copied"])
            if samples is renamed:  # the next quiet round is to follow a quiet one
                for peer in peers:
                    peer.backup()
    lb.check()
    shutil.rmtree(name)
    shutil.rmtree(folder)
    rows = []
    for peer in peers:
        without, with_rename = middle(quiet[peer.label]), middle(renamed[peer.label])
        ratio = with_rename / without
        beside = goal(ratio, 1.1) if peer is lb else f"{ratio:.2f}"
        rows.append((peer.label, f"{without:.2f}", f"{with_rename:.2f}", beside))
    return Result(
        name="rename",
        title=f"A directory of {workspace.renamed_files:,} files renamed",
        header=("program", "nothing changed (s)", "renamed (s)", "ratio"),
        rows=rows,
        notes=[
            f"bytes of file data that lb copied in all {workspace.rounds} rounds: {copied:,} "
            f"(goal 0: {'met' if copied == 0 else 'MISSED'}).",
            "The goal is no extra time; 1.1 allows for noise. rsync copies such a directory again.",
        ],
    )


def _left_out(missing: list[str]) -> list[str]:
    return [f"Not installed, so not measured: {', '.join(missing)}."] if missing else []
