"""``lb runs``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lbcore.cli.context import Lb
from lbcore.cli.opening import iso, open_catalog, size_text
from lbcore.cli.text import columns, printable_message

if TYPE_CHECKING:
    from lbcore.catalog.catalog import Catalog
    from lbcore.catalog.runs import Run

_HEAD = ("RUN", "STATE", "TIME", "TOOK", "NEW", "CHANGED", "REMOVED", "COPIED", "NOTE")


@click.command()
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects, newest last.")
@click.pass_obj
def runs(lb: Lb, job: str | None, as_json: bool) -> None:
    """List the runs of JOB, newest last. A committed run is a point in time."""
    with open_catalog(lb.job(job)) as catalog:
        if as_json:
            print(json.dumps([run_object(catalog, run) for run in catalog.runs.all()], indent=2))
            return
        table: list[tuple[str, ...]] = [_HEAD]
        table += [_row(catalog, run) for run in catalog.runs.all()]
    print("\n".join(printable_message(line) for line in columns(table)))


def _row(catalog: Catalog, run: Run) -> tuple[str, ...]:
    from lbcore.cli.progress import duration  # noqa: PLC0415 - not for help
    from lbcore.points import local_time  # noqa: PLC0415

    counts = [str(run.counts.get(f"objects_{what}", 0)) for what in ("new", "changed", "removed")]
    took = "-" if run.finished_ns is None else duration((run.finished_ns - run.started_ns) / 1e9)
    problems = catalog.runs.problem_count(run.run)
    notes = [
        f"{problems} could not be read" if problems else "",
        f"scanned: {run.gap}" if run.gap else "",
        run.message if run.message and run.state != "committed" else "",
    ]
    return (
        str(run.run),
        run.state,
        local_time(run.view_to_ns or run.started_ns),
        took,
        *counts,
        size_text(run.counts.get("bytes_copied", 0)),
        "; ".join(" ".join(note.split()) for note in notes if note),
    )


def run_object(catalog: Catalog, run: Run) -> dict[str, Any]:
    """A run, for ``--json``."""
    times = {
        "started": run.started_ns,
        "view_from": run.view_from_ns,
        "view_to": run.view_to_ns,
        "finished": run.finished_ns,
    }
    return {
        "id": run.run,
        "state": run.state,
        **{name: iso(time_ns) for name, time_ns in times.items()},
        **{f"{name}_ns": time_ns for name, time_ns in times.items()},
        "scan": bool(run.scan),
        "gap": run.gap,
        "resumed": run.resumed,
        "message": run.message,
        "counts": dict(run.counts),
        "errors": catalog.runs.problem_count(run.run),
    }
