"""``lb lustre``: register a job with the metadata servers, and see how its registrations are."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from lb_lustre.backlog import Backlog, look
from lb_lustre.errors import LustreError
from lb_lustre.feed import Feed
from lb_lustre.feeds import find_feeds
from lb_lustre.gate import serve
from lb_lustre.mounts import find_device
from lb_lustre.options import ChangelogOptions
from lb_lustre.server import Server
from lbcore.cli.context import Lb
from lbcore.cli.opening import size_text
from lbcore.cli.progress import duration
from lbcore.cli.text import columns, printable_message
from lbcore.config.job import JobConfig
from lbcore.errors import UsageError

_FAILED = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """One metadata server of a job's source."""

    server: Server
    feed: Feed
    name: str
    """Of the job's user."""
    configured: str | None
    """Its id, where the configuration tells."""


@click.group()
def lustre() -> None:
    """Register jobs with the metadata servers of a Lustre, and see how they are.

    For jobs with the detector 'changelog'. The servers are asked as 'changelog.servers' says in the configuration, by
    'lctl' on this node where it says nothing.
    """


@lustre.command()
@click.argument("filesystem")
def gate(filesystem: str) -> int:
    """On the MGS and the metadata servers: the forced command for the key of the node that runs lb.

    In authorized_keys, for the filesystem 'scratch': command="lb lustre gate scratch",restrict ssh-ed25519 AAAA...
    It runs what lb asks of lctl for this one FILESYSTEM, and refuses and logs everything else.
    """
    return serve(filesystem)


@lustre.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@click.pass_obj
def register(lb: Lb, jobs: tuple[str, ...]) -> int:
    """Register each JOB with all metadata servers; recording begins with it.

    Where it is registered already, nothing is done.
    """
    chosen = lb.jobs(jobs)
    _check_names(lb, chosen)
    return _for_all(chosen, _register)


def _register(job: JobConfig, place: _Place) -> None:
    state = place.server.state()
    user = state.user(place.name, place.configured)
    if user is None:
        print(f"{job.name}: {place.server.mdt}: registered as {place.server.register(place.name).id}")
        return
    lacking = state.lacking(user)
    if lacking:
        raise LustreError(
            f"{place.server.mdt}: '{place.name}' is taken: {user.id} does not get {', '.join(lacking)}. If it is this "
            f"job's, 'lb lustre deregister {job.name}' and register again, or let the next run do it; else give the "
            "job another name in 'changelog.user'"
        )
    print(f"{job.name}: {place.server.mdt}: is registered already, as {user.id}")


@lustre.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def deregister(lb: Lb, jobs: tuple[str, ...], yes: bool) -> int:
    """Give up the registrations of each JOB; the servers forget what they kept for it.

    The next run registers again and scans.
    """
    chosen = lb.jobs(jobs)
    _check_names(lb, chosen)
    if not yes:
        names = ", ".join(job.name for job in chosen)
        click.confirm(f"What changed since the last run of {names} will be found by a scan only. Go on?", abort=True)
    return _for_all(chosen, _deregister)


def _deregister(job: JobConfig, place: _Place) -> None:
    user = place.server.state().user(place.name, place.configured)
    if user is None:
        print(f"{job.name}: {place.server.mdt}: '{place.name}' is not registered")
        return
    place.server.deregister(user)
    print(f"{job.name}: {place.server.mdt}: deregistered {user.id}")


@lustre.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects, one for each job.")
@click.pass_obj
def status(lb: Lb, jobs: tuple[str, ...], as_json: bool) -> int:
    """Show for each JOB (all that use 'changelog' by default) what waits on the metadata servers, and for how long."""
    chosen = lb.jobs(jobs) if jobs else [job for job in lb.jobs() if _follows(job)]
    now_ns, found, shown = time.time_ns(), [], []

    def show(job: JobConfig, place: _Place) -> None:
        one = look(place.server, place.feed, place.name, place.configured, now_ns)
        found.append((job.name, _plain(one)))
        shown.append((job.name, one))

    code = _for_all(chosen, show)
    if as_json:
        print(json.dumps([
            {"job": job.name, "servers": [one for name, one in found if name == job.name]} for job in chosen
        ], indent=2))  # fmt: skip
    elif shown:
        print("\n".join(_table(shown)))
    return code


def _plain(one: Backlog) -> dict[str, Any]:
    return {**dataclasses.asdict(one), "lacking": list(one.lacking), "waiting": one.waiting}


def _table(shown: Iterable[tuple[str, Backlog]]) -> Iterator[str]:
    heads = "JOB SERVER USER MASK FIRST LAST CLEARED WAITING SIZE OLDEST IDLE DROPPED-IN"
    rows, notes = [tuple(heads.split())], []
    for job, one in shown:
        mask = "-" if one.user is None else "lacks types" if one.lacking else "complete"
        rows.append((
            job, one.mdt, one.user or "not registered", mask, _count(one.first), str(one.last), _count(one.cleared),
            _count(one.waiting), "-" if one.size_bytes is None else size_text(one.size_bytes),
            _time(one.oldest_seconds), _time(one.idle_seconds),
            _time(None if one.hours_left is None else one.hours_left * 3600),
        ))  # fmt: skip
        if one.user is None:
            notes.append(
                f"{job}: {one.mdt} records nothing for it: 'lb lustre register {job}', or the next run does it"
            )
        elif one.lacking:
            notes.append(
                f"{job}: {one.mdt} does not record {', '.join(one.lacking)}: the next run mends that, and scans"
            )
    yield from columns(rows)
    yield from notes


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


# -- what they share ------------------------------------------------------------------------------------------------


def _for_all(jobs: Iterable[JobConfig], act: Callable[[JobConfig, _Place], None]) -> int:
    """Act on each metadata server of each job; what fails is said, and does not hold up the others."""
    code = 0
    for job in jobs:
        try:
            places = list(_places(job))
        except LustreError as error:
            code = _say(job, error)
            continue
        for place in places:
            try:
                act(job, place)
            except LustreError as error:
                code = _say(job, error)
    return code


def _say(job: JobConfig, error: LustreError) -> int:
    print(f"lb: {job.name}: {printable_message(str(error))}", file=sys.stderr)
    return _FAILED


def _follows(job: JobConfig) -> bool:
    return isinstance(job.detector.options, ChangelogOptions)


def _places(job: JobConfig) -> Iterator[_Place]:
    options = job.detector.options
    if not isinstance(options, ChangelogOptions):
        raise UsageError(
            f"{job.name}: its detector is '{job.detector.name}'; only jobs with 'changelog' are registered"
        )
    filesystem = options.filesystem or find_device(job.source)[1]
    for feed in find_feeds(filesystem, job.source, devices=options.devices, reader=options.reader):
        server = Server(options.lctl(feed.mdt) or (), filesystem, feed.mdt)
        yield _Place(server=server, feed=feed, name=options.user_name(job.name), configured=options.user_id(feed.mdt))


def _check_names(lb: Lb, chosen: Iterable[JobConfig]) -> None:
    """Two jobs never share a registration: what one has cleared the other has not read.

    :raises UsageError: when two would.
    """
    for job in chosen:
        for other in lb.config.jobs.values():
            if job is other or not (_follows(job) and _follows(other)):
                continue
            name = job.detector.options.user_name(job.name)
            if name == other.detector.options.user_name(other.name):
                raise UsageError(
                    f"{job.name}: job '{other.name}' is registered as '{name}' too; set 'changelog.user' of one of them"
                )
