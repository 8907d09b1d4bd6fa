"""``lb plugins``."""

from __future__ import annotations

import dataclasses
import json

import click

from lbcore.cli.context import Lb
from lbcore.cli.text import columns, printable_message


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_obj
def plugins(lb: Lb, as_json: bool) -> None:
    """List what plugins provide, and the plugins that could not be loaded."""
    rows = lb.plugins.listing()
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    table = [("NAME", "KIND", "DISTRIBUTION", "VERSION", "STATE", "SUMMARY")]
    for row in rows:
        about = " ".join((row.error or row.summary).split())
        table.append((row.name, row.kind or "-", row.distribution, row.version or "-", row.state, about))
    print("\n".join(printable_message(line) for line in columns(table)))
