"""Kill ``lb run`` at each of its own steps while it backs up a simulated Lustre through snapshots."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from lbcore.testing import compare_trees
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_simulated import seen, shell
from tests.support.attempts import was_killed

pytestmark = [pytest.mark.sweep, pytest.mark.slow]

STRIDE = 1 if settings.default is not None and settings.default.max_examples > 1000 else 17
"""Every so many steps; each of them in the profile "deep"."""
PROGRAM = Path(__file__).parents[1] / "support" / "fault_points.py"
CONFIGURATION = """
[job.job]
source = "{source}"
target = "{target}"
detector = "changelog"
snapshotter = "lustre"
racy_seconds = 0
max_delete = "100%"
[job.job.changelog]
filesystem = "simfs"
devices = "{devices}"
users = {users}
[job.job.lustre]
"""


def run(config: Path, fault: str) -> subprocess.CompletedProcess[str]:
    """``lb run`` that does ``fault`` to itself."""
    return subprocess.run(
        [sys.executable, PROGRAM, "-c", config, "run"],
        capture_output=True,
        text=True,
        env={**os.environ, "LB_TEST_FAULT": fault},
        check=False,
        timeout=120,
    )


def test_a_run_killed_at_its_steps_misses_nothing_and_leaves_no_snapshot(lustre: Simulated, tmp_path: Path) -> None:
    config, target = tmp_path / "lb.toml", tmp_path / "target"
    users = str(list(lustre.register())).replace("'", '"')
    lines = [f"{key} = {str(value).replace(chr(39), chr(34))}" if isinstance(value, list) else f'{key} = "{value}"'
             for key, value in lustre.snapshotter().items()]  # fmt: skip
    config.write_text(
        CONFIGURATION.format(source=lustre.root, target=target, devices=lustre.devices, users=users) + "\n".join(lines)
    )
    shell(lustre.root, "mkdir -p a/b; for i in 1 2 3; do echo $i > a/f$i; done; ln a/f1 a/b/link")
    steps = run(config, "count").stderr.splitlines()
    assert {"take", "keep", "clear", "collect", "acknowledge", "flush", "create", "list", "destroy", "_release"} <= set(
        steps
    )
    for number in itertools.count(1, STRIDE):
        shell(
            lustre.root,
            f"echo {number} > a/f1; mv a/f2 a/f{number}.tmp; mv a/f3 a/f2; mv a/f{number}.tmp a/f3; mv a/b a/b{number};"
            f" mkdir a/b; mv a/b{number}/link a/b/; rmdir a/b{number}; echo {number} > a/new{number}",
        )
        done = run(config, f"kill:{number}")
        assert was_killed(done) or done.returncode == 0, done
        shell(lustre.root, f"echo more >> a/new{number}; rm -f a/new{number - 6}")
        for _ in range(2):  # the first may only complete what was killed, as its snapshot is
            completed = run(config, "count")
            assert completed.returncode == 0, (number, completed)
        assert compare_trees(seen(lustre.root), seen(target / "tree")) == [], number
        assert (lustre.snapshots(), lustre.mounted()) == ([], []), number
        if not was_killed(done):
            break
    assert number > 60
