"""``lb verify``."""

from __future__ import annotations

import json
from typing import Any

import click

from lbcore.cli.context import Lb
from lbcore.cli.text import printable, printable_message
from lbcore.errors import EXIT_DAMAGE, LbError, combined_exit_code


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--only", metavar="NAME", multiple=True, help="Only this check (repeatable).")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects, one for each job.")
@click.pass_obj
def verify(lb: Lb, jobs: tuple[str, ...], only: tuple[str, ...], as_json: bool) -> int:
    """Compare the whole backup of each JOB (all of them by default) with what the catalog says it holds.

    The checks are the job's configured verifiers (attributes and checksum, when there are none), the kept
    earlier contents (versions), and what lies in the mirror without belonging there (strays).
    """
    from lbcore.cli.progress import make_progress  # noqa: PLC0415 - help must not wait for the core
    from lbcore.plugins.types import Damage  # noqa: PLC0415
    from lbcore.verification import Verification  # noqa: PLC0415

    chosen = lb.jobs(jobs)
    codes, results = [], []
    for job in chosen:
        result: dict[str, Any] = {"job": job.name, "damage": []}
        results.append(result)

        def report(check: str, damage: Damage, result: dict[str, Any] = result) -> None:
            found = {"check": check, "path": printable(damage.path or b"."), "what": damage.what}
            result["damage"].append(found)
            if not as_json:
                print(f"{result['job']}: {found['path']}: {printable_message(damage.what)}")

        try:
            with make_progress(job.name, quiet=as_json) as progress:
                verification = Verification(job, lb.plugins, progress)
                checks = verification.run(verification.checks(only), report)
        except LbError as error:
            if len(chosen) == 1:
                raise
            result["message"] = str(error)
            codes.append(error.exit_code)
            click.echo(f"lb: {job.name}: {printable_message(str(error))}", err=True)
            continue
        result |= {"checks": checks.names, "objects": checks.objects, "versions": checks.versions,
                   "to_bring": checks.to_bring}  # fmt: skip
        codes.append(EXIT_DAMAGE if result["damage"] else 0)
        if not as_json:
            verdict = f"{len(result['damage'])} problems found" if result["damage"] else "no damage"
            if checks.to_bring:
                verdict += f"; 'lb run {job.name}' brings {checks.to_bring} of its objects again"
            print(f"{job.name}: checked {', '.join(checks.names)}: {checks.objects} objects, {checks.versions} "
                  f"earlier contents: {verdict}")  # fmt: skip
    if as_json:
        print(json.dumps(results, indent=2))
    return combined_exit_code(codes)
