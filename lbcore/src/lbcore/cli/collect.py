"""``lb collect``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from lbcore.cli.context import Lb
from lbcore.cli.run import choose, failed
from lbcore.cli.text import printable_message
from lbcore.errors import EXIT_DONE, LbError, combined_exit_code


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one object that sums up.")
@click.pass_obj
def collect(lb: Lb, jobs: tuple[str, ...], as_json: bool) -> int:
    """Read the change feed of each JOB (all of them by default) into its catalog, and let the feed forget it.

    Made for cron, often: what the servers keep for us stays small. The next run looks at what was collected. It may be
    called while a run is open or at work.
    """
    from lbcore.alone import collect_alone  # noqa: PLC0415 - help must not wait for the core

    chosen, broken = choose(lb, jobs)
    results: list[dict[str, Any]] = [failed(name, error) for name, error in broken.items()]
    for job in chosen:
        try:
            found = collect_alone(job)
        except LbError as error:
            print(f"lb: {job.name}: {printable_message(str(error))}", file=sys.stderr)
            results.append(failed(job.name, error))
            continue
        if found is None:
            results.append({"job": job.name, "state": "no feed", "exit_code": EXIT_DONE})
            line = f"its detector '{job.detector.name}' has no feed; there is nothing to collect"
        else:
            counts = {"hints": found.hints, "gap": found.gap, "notes": list(found.notes)}
            results.append({"job": job.name, "state": "collected", "exit_code": EXIT_DONE, **counts})
            line = "; ".join([f"{found.hints} objects for the next run to look at", *found.notes])
            if found.gap is not None:
                gap = printable_message(found.gap)
                print(f"lb: {job.name}: the feed has a gap, the next run scans: {gap}", file=sys.stderr)
        if not as_json:
            print(f"{job.name}: {printable_message(line)}")
    if as_json:
        print(json.dumps({"jobs": results}, indent=2))
    return combined_exit_code(result["exit_code"] for result in results)
