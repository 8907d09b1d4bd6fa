"""``lb status``."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from lbcore.cli.context import Lb
from lbcore.cli.opening import iso, open_catalog, size_text
from lbcore.cli.text import printable, printable_message
from lbcore.errors import LbError, combined_exit_code

if TYPE_CHECKING:
    from lbcore.catalog.catalog import Catalog
    from lbcore.catalog.runs import Run
    from lbcore.config.job import JobConfig

_PROBLEMS_SHOWN = 20


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_obj
def status(lb: Lb, jobs: tuple[str, ...], as_json: bool) -> int:
    """Show for each JOB (all of them by default) the last good run, sizes, and what is open."""
    found, codes = [], []
    broken = {} if jobs else lb.config.broken
    for name, error in broken.items():
        print(f"lb: {printable_message(str(error))}", file=sys.stderr)
        codes.append(error.exit_code)
        if as_json:
            found.append({"job": name, "state": "misconfigured", "message": str(error)})
    for job in lb.jobs(jobs) if jobs else lb.config.jobs.values():
        try:
            found.append(_status(job))
        except LbError as failure:
            codes.append(failure.exit_code)
            found.append({"job": job.name, "state": "unreadable", "message": str(failure)})
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(printable_message(line) for one in found for line in _lines(one)))
    return combined_exit_code(codes)


def _status(job: JobConfig) -> dict[str, Any]:
    places = {"job": job.name, "source": printable(job.source), "target": printable(job.target)}
    if _never_ran(job):
        return {**places, "state": "never run"}
    with open_catalog(job) as catalog:
        return {**places, **_of_catalog(job, catalog)}


def _never_ran(job: JobConfig) -> bool:
    """Nothing of a backup is there. Where that cannot be known, whoever opens the catalog says why."""
    from lbcore.run import catalog_path  # noqa: PLC0415
    from lbcore.target import LB, TREE  # noqa: PLC0415

    try:
        os.stat(catalog_path(job))
    except FileNotFoundError:
        return os.path.isdir(job.target) and not any(
            os.path.lexists(os.path.join(job.target, name)) for name in (LB, TREE)
        )
    except OSError:
        pass
    return False


def _of_catalog(job: JobConfig, catalog: Catalog) -> dict[str, Any]:
    from lbcore import brake  # noqa: PLC0415
    from lbcore.catalog.past import Past  # noqa: PLC0415
    from lbcore.holder import lock_holder  # noqa: PLC0415
    from lbcore.target import LB  # noqa: PLC0415

    good, last = catalog.runs.last_committed(), catalog.runs.last()
    waits = last is not None and last.state != "committed"
    running = lock_holder(os.path.join(job.target, LB, b"lock"))
    now, kept = Past(catalog.database).totals_now(), Past(catalog.database).totals_kept()
    shown = last if waits else good
    return {
        "state": "running" if running else last.state if waits and last else "good" if good else "never run",
        "running": running,
        "last_good": None if good is None else _good(catalog, good),
        "points": sum(run.state == "committed" for run in catalog.runs.all()),
        "objects": now.objects,
        "files": now.files,
        "files_without_content": catalog.objects.count_without_content(),
        "bytes": now.size_bytes,
        "kept_files": kept.files,
        "kept_bytes": kept.size_bytes,
        "open": _open(last) | {"approved_removals": brake.approved(catalog)} if waits and last is not None else None,
        "problems": [
            {"path": printable(problem.path or b"."), "reason": problem.reason, "counted": problem.counted}
            for problem in (catalog.runs.problems(shown.run) if shown is not None else ())
        ],
        "hints": catalog.hints.count(),
    }


def _good(catalog: Catalog, run: Run) -> dict[str, Any]:
    time_ns = run.view_to_ns or run.started_ns
    return {
        "run": run.run,
        "time": iso(time_ns),
        "time_ns": time_ns,
        "age_seconds": round((time.time_ns() - time_ns) / 1e9),
        "errors": catalog.runs.problem_count(run.run),
    }


def _open(run: Run) -> dict[str, Any]:
    return {
        "run": run.run,
        "state": run.state,
        "started": iso(run.started_ns),
        "started_ns": run.started_ns,
        "message": run.message,
    }


def _lines(one: dict[str, Any]) -> list[str]:
    from lbcore.cli.progress import duration  # noqa: PLC0415
    from lbcore.points import local_time  # noqa: PLC0415

    name = one["job"]
    if one["state"] in ("unreadable", "never run"):
        message = " ".join(one.get("message", "").split())
        if one["state"] == "never run":
            return [f"{name}: no backup yet; 'lb run {name}' makes it"]
        return [f"{name}: {one['state']}: {message.removeprefix(f'{name}: ')}"]
    good, waits = one["last_good"], one["open"]
    if good is None:
        lines = [f"{name}: no run is complete yet"]
    else:
        age = duration(max(0, good["age_seconds"]))
        lines = [f"{name}: last good run {good['run']}, {age} ago ({local_time(good['time_ns'])})"]
    lines.append(f"  {one['source']} -> {one['target']}")
    without = one["files_without_content"]
    more = f"; of {without} of them no content, which was never at hand in the source" if without else ""
    lines.append(f"  holds {one['objects']} objects: {one['files']} files, {size_text(one['bytes'])}{more}")
    kept = f"{one['kept_files']}, {size_text(one['kept_bytes'])}"
    lines.append(f"  points in time: {one['points']}; earlier contents kept: {kept}")
    if one["running"]:
        lines.append(f"  running: {one['running']}")
    if waits is not None:
        how = f"'lb run {name}' goes on with it"
        if waits["state"] == "braked" and waits["approved_removals"] is None:
            how = f"'lb approve {name}' lets it go on"
        elif waits["state"] == "braked":
            how = f"approved, 'lb run {name}' may remove up to {waits['approved_removals']}"
        since = local_time(waits["started_ns"])
        lines.append(
            f"  run {waits['run']} is {waits['state']}, begun {since}" + ("" if one["running"] else f"; {how}")
        )
        if waits["message"]:
            lines.append(f"    {' '.join(waits['message'].split())}")
    problems = one["problems"]
    if problems:
        lines.append(f"  {len(problems)} problems in the last run:")
        lines += [f"    {problem['path']}: {problem['reason']}" for problem in problems[:_PROBLEMS_SHOWN]]
        if len(problems) > _PROBLEMS_SHOWN:
            lines.append(f"    and {len(problems) - _PROBLEMS_SHOWN} more")
    if one["hints"]:
        lines.append(f"  {one['hints']} objects are looked at again by the next run")
    return lines
