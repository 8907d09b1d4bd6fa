"""Recorded scenarios: whatever a real Lustre changed, its records lead to."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from lb_lustre import _records, fid
from lb_lustre._records import Reduction, Stream
from tests.lb_lustre.recordings import FOLDER, dumps, needs_recordings, reads

pytestmark = needs_recordings

SCENARIOS = ["a_files", "b_delete", "c_rename", "d_links", "e_dne", "f_layout", "h_misc", "m_defmask"]
KEPT = ("type", "mode", "uid", "gid", "mtime_ns", "target", "layout")
"""What of an object is compared beside its names, content and size."""
OF_SERVERS = ("trusted.lma", "trusted.link", "trusted.version", "trusted.som", "trusted.lov", "lustre.lov",
              "trusted.lmv", "trusted.dmv", "trusted.hsm")  # fmt: skip


def tree(name: str) -> dict[str, dict[str, Any]]:
    """The objects of a recorded tree by FID, each with all its names."""
    objects: dict[str, dict[str, Any]] = {}
    nodes = [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]
    paths = {node["path_hex"]: node["fid"] for node in nodes}
    for node in nodes:
        parent, _, base = bytes.fromhex(node["path_hex"]).rpartition(b"/")
        one = objects.setdefault(node["fid"], {"names": set(), **{key: node.get(key) for key in KEPT}})
        one["names"].add((paths.get(parent.hex() if parent else b".".hex()), base))
        one["content"] = (node.get("sha256"), node["size"]) if node["type"] == "f" else None
        xattrs = node.get("xattrs") or {}
        one["xattrs"] = {key: value for key, value in xattrs.items() if key not in OF_SERVERS}
    return objects


def reduced(scenario: str, seed: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """All records of all servers, in a random interleaving that keeps the order within each server."""
    chance = random.Random(seed)
    reduction = Reduction()
    waiting = [(list(reads(name)), Stream()) for name in dumps(f"{scenario}.mdt?.bin")]
    while waiting := [(pieces, stream) for pieces, stream in waiting if pieces]:
        pieces, stream = chance.choice(waiting)
        reduction.feed(pieces.pop(0), stream)
    hints = {fid.text(object_id): flags for object_id, flags, _ in reduction.hints()}
    return hints, [(fid.text(old), fid.text(new)) for old, new in reduction.renumbered()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_object_that_changed_is_named_and_every_changed_content_marked(
    scenario: str, seed: int, record_property: Any
) -> None:
    before, after = tree(f"{scenario}.before.jsonl"), tree(f"{scenario}.after.jsonl")
    hints, renumbered = reduced(scenario, seed)
    old_of = {new: old for old, new in renumbered}
    changed = {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)}
    assert changed, "the scenario changes something"
    # A migrated object's other names get its new FID without a record of their own (section 9, item 12).
    assert changed <= hints.keys() | set(old_of) | set(old_of.values())
    rewritten = set()
    for one, now in after.items():
        was = before.get(one) or before.get(old_of.get(one, ""))
        if now["content"] is not None and was is not None and was["content"] != now["content"]:
            rewritten.add(one)
    marked = {one for one, flags in hints.items() if flags & _records.DATA}
    assert rewritten <= marked
    new_files = {one for one, now in after.items() if now["content"] and one not in before and one not in old_of}
    needless = {one for one in marked if one in after and after[one]["content"]} - rewritten - new_files
    record_property("marked_needlessly", len(needless))
    print(f"{scenario}: {len(changed)} changed, {len(rewritten)} rewritten, {len(needless)} marked needlessly")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_order_of_the_servers_makes_no_difference(scenario: str) -> None:
    first = reduced(scenario, 0)
    assert all(reduced(scenario, seed)[0] == first[0] for seed in range(1, 6))


def test_a_migration_is_recorded_as_a_new_number() -> None:
    _, renumbered = reduced("e_dne", 0)
    before, after = tree("e_dne.before.jsonl"), tree("e_dne.after.jsonl")
    assert len(renumbered) > 3
    for old, new in renumbered:
        assert old not in after
        if old in before and new in after:
            assert before[old]["type"] == after[new]["type"]
