"""``lb init``."""

from __future__ import annotations

import os

import click

from lbcore.cli.context import Lb
from lbcore.cli.text import printable


@click.command()
@click.option("--source", required=True, metavar="DIR", help="The folder to back up.")
@click.option("--target", required=True, metavar="DIR", help="The folder that is to hold the backup.")
@click.option("--job", "name", metavar="NAME", help="The job's name; after the source when not given.")
@click.pass_obj
def init(lb: Lb, source: str, target: str, name: str | None) -> None:
    """Write a commented configuration that runs as it is; an existing file gets one more job."""
    from lbcore.config import writer  # noqa: PLC0415 - help must not wait for plugins

    source, target = os.path.abspath(source), os.path.abspath(target)
    path = os.path.abspath(lb.config_file or writer.default_file())
    job = writer.add_job(path, name or writer.default_name(source), source, target, lb.plugins)
    print(f"wrote job '{job.name}' to {printable(os.fsencode(path))}")
    if not os.path.isdir(source):
        click.echo(f"lb: note: {printable(job.source)} is not a directory now", err=True)
    from lbcore.config.loader import candidates  # noqa: PLC0415

    found = next((file for file, _ in candidates(None) if os.path.exists(file)), None)
    named = "" if found and os.path.samefile(found, path) else f"-c {printable(os.fsencode(path))} "
    print(f"next: lb {named}run {job.name}")
