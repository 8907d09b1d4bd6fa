"""``lb check``."""

from __future__ import annotations

import json
from typing import Any

import click

from lbcore.cli.context import Lb
from lbcore.cli.run import choose, failed
from lbcore.cli.text import printable_message
from lbcore.errors import EXIT_DONE, combined_exit_code

_FAILED = 1


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_obj
def check(lb: Lb, jobs: tuple[str, ...], as_json: bool) -> int:
    """Look whether each JOB (all of them by default) can run, and say what to do where not. Changes nothing.

    Source and target are looked at, what is known of them, and what the job's plugins say. The status is 1 when a run
    would fail or be worth less, 2 when the configuration is wrong; what is for later does not count.
    """
    from lbcore.checking import check_job  # noqa: PLC0415 - help must not wait for the core

    chosen, broken = choose(lb, jobs)
    results: list[dict[str, Any]] = [failed(name, error) for name, error in broken.items()]
    for job in chosen:
        findings = list(check_job(job, lb.plugins))
        code = _FAILED if any(finding.fatal for finding in findings) else EXIT_DONE
        found = [{"what": one.what, "advice": one.advice, "fatal": one.fatal} for one in findings]
        results.append({"job": job.name, "state": "checked", "exit_code": code, "findings": found})
        if as_json:
            continue
        print(f"{job.name}: {'see to this:' if findings else 'nothing is wrong'}")
        for one in findings:
            print(f"  {'' if one.fatal else 'later: '}{printable_message(one.what)}")
            print(f"    {printable_message(one.advice)}")
    if as_json:
        print(json.dumps({"jobs": results}, indent=2))
    return combined_exit_code(result["exit_code"] for result in results)
