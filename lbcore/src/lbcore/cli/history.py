"""``lb history``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from lbcore.cli.context import Lb
from lbcore.cli.opening import iso, job_option, open_catalog, print_json_list, row_object
from lbcore.cli.text import columns, printable
from lbcore.errors import UsageError

if TYPE_CHECKING:
    from lbcore.catalog.runs import Run
    from lbcore.history import Version


@click.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects, one for each version.")
@job_option
@click.pass_obj
def history(lb: Lb, path: str, as_json: bool, job_name: str | None) -> None:
    """List all versions of the file or directory at PATH, across renames.

    When several objects had this path one after the other, or it is gone now, all of them are listed.
    """
    from lbcore import history as past  # noqa: PLC0415 - help must not wait for the core
    from lbcore import points  # noqa: PLC0415

    job = lb.job(job_name)
    inside = points.inside_path(os.fsencode(path), job.source)
    with open_catalog(job) as catalog:
        objects = past.holders(catalog, inside)
        if not objects:
            raise UsageError(f"no point in time holds {path}; {points.available(catalog)}")
        runs = {run.run: run for run in catalog.runs.all()}
        if as_json:
            print_json_list(_object(obj, version, runs) for obj in objects for version in past.versions(catalog, obj))
            return
        for number, obj in enumerate(objects):
            if number:
                print()
            _print(past.versions(catalog, obj), runs)


def _print(versions: list[Version], runs: dict[int, Run]) -> None:
    from lbcore.points import local_time  # noqa: PLC0415

    table = [("RUNS", "SINCE", "SIZE", "MODIFIED", "CHANGE", "PATH")]
    newest = max(number for number, run in runs.items() if run.state == "committed")
    for version in versions:
        last = "" if version.last == newest else version.last
        span = f"{version.first}" if version.first == version.last != newest else f"{version.first}-{last}"
        row = version.row
        size = f"{row.size}" if row is not None and row.data_run is not None else "-"
        modified = "-" if row is None else local_time(row.mtime_ns)
        first, *others = version.paths or (b"",)
        since = local_time(_time(runs[version.first]))
        shown = "-" if row is None else printable(first or b".")
        table.append((span, since, size, modified, ",".join(version.what), shown))
        table += [("", "", "", "", "", printable(other)) for other in others]
    print("\n".join(columns(table)))


def _object(obj: int, version: Version, runs: dict[int, Run]) -> dict[str, Any]:
    first, last = runs[version.first], runs[version.last]
    return {
        "first_run": version.first,
        "last_run": version.last,
        "first_time": iso(_time(first)),
        "last_time": iso(_time(last)),
        "change": list(version.what),
        "paths": [printable(path or b".") for path in version.paths],
        "object": obj,
        **({} if version.row is None else row_object(version.row)),
    }


def _time(run: Run) -> int:
    return run.view_to_ns or run.started_ns
