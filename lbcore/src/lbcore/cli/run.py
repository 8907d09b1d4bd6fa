"""``lb run`` and ``lb approve``."""

from __future__ import annotations

import contextlib
import gc
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from lbcore.cli.context import Lb
from lbcore.cli.text import printable, printable_message
from lbcore.errors import EXIT_DONE, LbError, UsageError, combined_exit_code

if TYPE_CHECKING:
    from lbcore.catalog.catalog import Catalog
    from lbcore.catalog.steps import Step
    from lbcore.config.job import JobConfig
    from lbcore.progress import Progress
    from lbcore.run import Options, Outcome

_PROBLEMS_SHOWN = 20


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--full", is_flag=True, help="Look at everything, whatever is known of it.")
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("--max-delete", metavar="N", help="Allow this many removals, once: 1000, 25% or '25% and 1000'.")
@click.option("--json", "as_json", is_flag=True, help="Print one object that sums up.")
@click.pass_obj
def run(lb: Lb, /, jobs: tuple[str, ...], *, full: bool, dry_run: bool, max_delete: str | None, as_json: bool) -> int:
    """Bring the backup of each JOB (all of them by default) to the present state of its source.

    A run that was interrupted is continued. SIGTERM pauses a run at its next batch.
    """
    from lbcore.cli.progress import make_progress  # noqa: PLC0415 - help must not wait for the core
    from lbcore.config.limits import MaxDelete  # noqa: PLC0415
    from lbcore.run import JobRun, Options  # noqa: PLC0415

    # A run makes no cycles, and millions of short-lived rows: looking for garbage in them is a tenth of its time.
    gc.set_threshold(100_000, 50, 100)
    options = Options(full=full, max_delete=None if max_delete is None else MaxDelete.parse(max_delete))
    chosen, broken = choose(lb, jobs)
    codes = [error.exit_code for error in broken.values()]
    outcomes = [failed(name, error) for name, error in broken.items()]
    with _pausing() as pause_requested:
        for job in chosen:
            with make_progress(job.name, quiet=as_json) as progress:
                if dry_run:
                    planned, code = _dry_run(job, progress, options, as_json)
                    outcomes.append(planned)
                    codes.append(code)
                else:
                    outcome = JobRun(job, lb.plugins, options, progress, pause_requested).run()
                    outcomes.append(_summary(outcome, job))
                    codes.append(outcome.exit_code)
            if not dry_run and not as_json:
                _print_outcome(outcome, job)
    if as_json:
        print(json.dumps({"jobs": outcomes}, indent=2))
    return combined_exit_code(codes)


def choose(lb: Lb, names: tuple[str, ...]) -> tuple[list[JobConfig], Mapping[str, LbError]]:
    """The jobs to work on; without names a job with a broken section is reported and does not hold up the others."""
    if names:
        return lb.jobs(names), {}
    for error in lb.config.broken.values():
        print(f"lb: {printable_message(str(error))}", file=sys.stderr)
    return list(lb.config.jobs.values()), lb.config.broken


def failed(job: str, error: LbError) -> dict[str, Any]:
    return {"job": job, "state": "failed", "exit_code": error.exit_code, "message": str(error)}


@contextlib.contextmanager
def _pausing() -> Iterator[Any]:
    """SIGTERM asks for a pause; the second one ends the process as usual."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    previous = signal.signal(signal.SIGTERM, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGTERM, previous)


def _summary(outcome: Outcome, job: JobConfig) -> dict[str, Any]:
    return {
        "job": outcome.job,
        "run": outcome.run,
        "state": outcome.state,
        "exit_code": outcome.exit_code,
        "objects_new": 0,
        "objects_changed": 0,
        "objects_removed": 0,
        "files_copied": 0,
        "bytes_copied": 0,
        "bytes_sent": 0,
        **outcome.counts,
        "errors": outcome.problems,
        "seconds": round(outcome.seconds, 3),
        "message": outcome.message,
    }


def _print_outcome(outcome: Outcome, job: JobConfig) -> None:
    counts = outcome.counts
    line = (
        f"{outcome.job}: run {outcome.run} {outcome.state} in {outcome.seconds:.1f} s: "
        f"{counts.get('objects_new', 0)} new, {counts.get('objects_changed', 0)} changed, "
        f"{counts.get('objects_removed', 0)} removed; {counts.get('files_copied', 0)} files copied "
        f"({counts.get('bytes_copied', 0)} bytes)"
    )
    if outcome.state == "committed":
        print(line)
    for name, count in counts.items():
        if name == "not_held_missing":
            print(f"lb: {job.name}: {count} objects were gone from the mirror; the next run brings files among "
                  "them and what lay below directories, the others were made anew; 'lb verify' finds what else is gone",
                  file=sys.stderr)  # fmt: skip
        elif name == "files_without_content":
            print(f"{job.name}: of {count} files the backup holds no content: it was never at hand in the source")
        elif name.startswith("not_held_"):
            print(f"{job.name}: {name[9:]}: could not be set in the mirror for {count} objects; the catalog has it")
    if outcome.message:
        print(f"lb: {outcome.job}: {printable_message(outcome.message)}", file=sys.stderr)
    if outcome.run and (outcome.problems or outcome.exit_code == 4):
        _print_problems(outcome, job)


def _print_problems(outcome: Outcome, job: JobConfig) -> None:
    from lbcore.catalog.catalog import Catalog  # noqa: PLC0415
    from lbcore.run import catalog_path  # noqa: PLC0415

    with contextlib.closing(Catalog.open(catalog_path(job), read_only=True)) as catalog:
        for number, problem in enumerate(catalog.runs.problems(outcome.run)):
            if number == _PROBLEMS_SHOWN:
                print(f"lb: {job.name}: and more; 'lb status {job.name}' counts them", file=sys.stderr)
                break
            note = "" if problem.counted else " (looked at again by the next run)"
            print(f"lb: {job.name}: {printable(problem.path)}: {problem.reason}{note}", file=sys.stderr)


def _dry_run(job: JobConfig, progress: Progress, options: Options, as_json: bool) -> tuple[dict[str, Any], int]:
    from lbcore.catalog.steps import What  # noqa: PLC0415
    from lbcore.dryrun import dry_run  # noqa: PLC0415

    words = ((What.NEW, "new"), (What.GONE, "remove"), (What.NAMES, "move"), (What.DATA, "content"),
             (What.ATTRIBUTES, "attributes"))  # fmt: skip
    compared = 0

    def show(catalog: Catalog, step: Step) -> None:
        nonlocal compared
        what = next((word for flag, word in words if step.what & flag), None)
        if what is None:  # most likely nothing changed; there are many of them after a first backup of new files
            compared += 1
            return
        if as_json:
            return
        print(f"{what:10} {printable(_step_path(catalog, step))}")

    try:
        counts, stopped, scan = dry_run(job, progress, show, max_delete=options.max_delete, full=options.full)
    except LbError as error:
        print(f"lb: {job.name}: {printable_message(str(error))}", file=sys.stderr)
        return failed(job.name, error), error.exit_code
    if not as_json:
        print(
            f"{job.name}: would make {counts['objects_new']}, change {counts['objects_changed']} "
            f"and remove {counts['objects_removed']} objects; nothing was changed"
        )
        if compared:
            print(f"{job.name}: would compare {compared} more, which may have been written to when they were last read")
        print(f"{job.name}: {'the feed was followed' if scan is None else f'everything was looked at: {scan}'}")
        if stopped:
            print(f"{job.name}: the brake would stop it: {stopped}")
    counts |= {"objects_compared": compared}
    said = {"job": job.name, "state": "planned", "exit_code": EXIT_DONE, **counts, "brake": stopped, "scan": scan}
    return said, EXIT_DONE


def _step_path(catalog: Catalog, step: Step) -> bytes:
    """The path an object is to have; for one that goes, the path it has."""
    from lbcore.catalog.objects import ROOT  # noqa: PLC0415

    parts: list[bytes] = []
    obj = step.obj
    while obj != ROOT:
        names = catalog.plan.names(obj, gained=True) or catalog.names.of(obj)
        if not names:
            break
        obj, name = names[0]
        parts.append(name)
    return b"/".join(reversed(parts)) or b"."


@click.command()
@click.argument("job", required=False)
@click.pass_obj
def approve(lb: Lb, job: str | None) -> None:
    """Let the next run of JOB remove as much as the one that the brake stopped wanted to, once."""
    from lbcore import brake  # noqa: PLC0415 - help must not wait for the core
    from lbcore.catalog.catalog import Catalog  # noqa: PLC0415
    from lbcore.run import catalog_path  # noqa: PLC0415

    config = lb.job(job)
    with contextlib.closing(Catalog.open(catalog_path(config), read_only=True)) as catalog:
        last = catalog.runs.last()
    if last is None or last.state != "braked":
        raise UsageError(f"{config.name}: the last run was not stopped by the brake; there is nothing to approve")
    with contextlib.closing(Catalog.open(catalog_path(config))) as catalog:
        brake.approve(catalog, last.removals)
    print(f"{config.name}: the next run may remove up to {last.removals} objects")
