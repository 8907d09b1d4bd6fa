"""The bench of runs on Lustre: it works, and begins with what a first run would have left."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.populated import back_up_populated
from lbcore.catalog.schema import OBJECT_COLUMNS
from lbcore.testing import compare_trees
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated, simulated

pytestmark = pytest.mark.slow

MakeJob = Callable[..., Job]
FINGERPRINTS_SETTLE_SECONDS = 3.1
COLUMNS = ", ".join(f"o.{column}" for column in OBJECT_COLUMNS.split(", ") if column != "extras")
SAID = (
    f"SELECT {COLUMNS}, o.first_run, e.data FROM object o LEFT JOIN extras e USING (extras) ORDER BY o.id",
    "SELECT p.id, n.name, o.id, n.first_run FROM name n JOIN object p ON p.obj = n.parent "
    "JOIN object o ON o.obj = n.obj ORDER BY p.id, n.name",
    "SELECT o.id FROM listing JOIN object o USING (obj) ORDER BY o.id",
    "SELECT run, state, scan, resumed, gap, message, removals, counts, snapshot, collection, cut_ns FROM run",
    "SELECT key, value FROM meta WHERE key IN ('source_root', 'scope', 'collection') ORDER BY key",
    "SELECT type, name, sql FROM sqlite_master ORDER BY type, name",
)


def said(job: Job) -> list[list[tuple[Any, ...]]]:
    """What a catalog says, whatever numbers it has given to objects; of all tables, how many rows they have."""
    with job.catalog() as catalog:
        found = [catalog.database.execute(query).fetchall() for query in SAID]
        tables = [name for kind, name, _ in found[-1] if kind == "table"]
        return [*found, [(name, catalog.database.value(f"SELECT count(*) FROM {name}")) for name in tables]]


def looked_at_everything(job: Job, run: int) -> bool:
    with job.catalog() as catalog:
        found = catalog.runs.get(run)
        assert found is not None
        return bool(found.scan)


def test_what_is_measured_begins_as_a_first_run_would_have_left_it(lustre: Simulated, make_job: MakeJob) -> None:
    lustre.ask("populate", files=300, per_directory=100)
    time.sleep(FINGERPRINTS_SETTLE_SECONDS)  # a scan trusts no directory that is younger: it is the clock that goes on
    real = make_job(name="real")
    filled = make_job(name="filled", users=lustre.register("filled"))
    assert real.run().exit_code == 0
    first = back_up_populated(filled, str(lustre.folder / "control"))
    assert (first.exit_code, first.counts["files_copied"]) == (0, 300), first
    for there, expected in zip(said(filled), said(real), strict=True):
        assert there == expected
    assert compare_trees(real.tree, filled.tree) == []

    verified = filled.command("verify")
    assert verified.exit_code == 0, verified.output
    for full in (False, True):
        idle = filled.run(full=full)
        assert idle.exit_code == 0, idle
        assert looked_at_everything(filled, idle.run) == full
        assert not idle.counts["objects_new"] + idle.counts["objects_changed"] + idle.counts["objects_removed"], idle
    (lustre.root / "000001/00000150").write_bytes(b"changed")
    changed = filled.run()
    assert (changed.exit_code, changed.counts["files_copied"]) == (0, 1), changed
    assert not looked_at_everything(filled, changed.run)


def test_the_bench_runs(tmp_path: Path) -> None:
    with simulated(tmp_path / "possible"):
        pass
    bench = [sys.executable, "-m", "bench.bench", "--quick", "--only", "lustre", "--scratch", str(tmp_path)]
    ran = subprocess.run(bench, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for files in ("1,000", "10,000"):
        assert f"| {files} " in ran.stdout, ran.stderr
