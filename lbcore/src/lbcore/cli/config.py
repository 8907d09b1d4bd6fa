"""``lb config validate`` and ``lb config show``."""

from __future__ import annotations

import json

import click

from lbcore.cli.context import Lb


@click.group()
def config() -> None:
    """Check or show the configuration."""


@config.command()
@click.pass_obj
def validate(lb: Lb) -> None:
    """Check the configuration: every key, every plugin that a job names.

    Whether a source is there is checked when a job runs.
    """
    lb.config.check()
    count = len(lb.config.jobs)
    print(f"{lb.config.path}: {count} job{'' if count == 1 else 's'}, no errors")


@config.command()
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_obj
def show(lb: Lb, job: str | None, as_json: bool) -> None:
    """Print the values in effect, those of JOB or of all jobs, in the syntax of the configuration file."""
    from lbcore.config.job import to_plain  # noqa: PLC0415 - help must not wait for plugins
    from lbcore.config.toml import job_text  # noqa: PLC0415

    plain = {config.name: to_plain(config) for config in lb.jobs([job] if job else [])}
    if as_json:
        print(json.dumps({"path": lb.config.path, "jobs": plain}, indent=2))
    else:
        print(f"# {lb.config.path}\n")
        print("\n".join(job_text(name, values) for name, values in plain.items()), end="")
