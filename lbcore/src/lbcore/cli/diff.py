"""``lb diff``."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import click

from lbcore.cli.context import Lb
from lbcore.cli.opening import KINDS, job_option, open_catalog, print_json_list
from lbcore.cli.text import printable

if TYPE_CHECKING:
    from lbcore.differences import Difference


@click.command()
@click.argument("older", metavar="RUN")
@click.argument("newer", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@job_option
@click.pass_obj
def diff(lb: Lb, older: str, newer: str, as_json: bool, job_name: str | None) -> None:
    """Show what changed from one point in time to another: new, removed, renamed, content, attributes.

    What lies below a renamed directory is not listed for that.
    """
    from lbcore.differences import differences  # noqa: PLC0415 - help must not wait for the core
    from lbcore.points import find_point  # noqa: PLC0415

    with open_catalog(lb.job(job_name)) as catalog:
        found = differences(catalog, find_point(catalog, older).run, find_point(catalog, newer).run)
        if as_json:
            print_json_list(map(_object, found))
            return
        for difference in found:
            old = "" if difference.old_path is None else f"{printable(difference.old_path)} -> "
            slash = "/" if stat.S_ISDIR(difference.mode) and difference.path else ""
            print(f"{','.join(difference.what):18} {old}{printable(difference.path or b'.')}{slash}")


def _object(difference: Difference) -> dict[str, Any]:
    return {
        "path": printable(difference.path or b"."),
        "change": list(difference.what),
        "old_path": None if difference.old_path is None else printable(difference.old_path),
        "kind": KINDS.get(stat.S_IFMT(difference.mode), "unknown"),
    }
