"""The commands of ``lb``, called within this process on a job of the fixture ``lb_job``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from lbcore.cli.main import main
from lbcore.config.toml import toml_value
from lbcore.testing.job import Job


def configuration(*jobs: Job, more: str = "") -> str:
    """Write the configuration of some jobs; returns its path."""
    path = Path(os.fsdecode(os.path.dirname(jobs[0].source))) / "lb.toml"
    lines = []
    for job in jobs:
        lines += [f"[job.{job.name}]", f"source = {toml_value(os.fsdecode(job.source))}"]
        lines += [f"target = {toml_value(os.fsdecode(job.target))}", more]
    path.write_text("\n".join(lines))
    return str(path)


def call(config: str, *arguments: str | bytes | Path) -> Result:
    """``lb -c CONFIG ARGUMENTS``."""
    return CliRunner().invoke(main, ["-c", config, *map(os.fsdecode, arguments)])


def lb(job: Job, *arguments: str | bytes | Path) -> Result:
    """The same for one job, with its configuration."""
    return call(configuration(job), *arguments)


def output(job: Job, *arguments: str | bytes | Path) -> str:
    """What a command prints that must end well and say nothing else."""
    result = lb(job, *arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def json_of(job: Job, *arguments: str | bytes | Path) -> Any:
    """What a command prints with ``--json``."""
    return json.loads(output(job, *arguments, "--json"))


def back_up(job: Job) -> int:
    """A run that must end well; its number."""
    outcome = job.run()
    assert (outcome.state, outcome.exit_code) == ("committed", 0), outcome
    return outcome.run
