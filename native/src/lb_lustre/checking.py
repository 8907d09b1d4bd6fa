"""What ``lb check`` finds of a job's changelogs, and of this node where snapshots are to be mounted on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from lb_lustre.backlog import Backlog, look
from lb_lustre.errors import LustreError
from lb_lustre.feed import Feed
from lb_lustre.mounts import find_device
from lb_lustre.options import ChangelogOptions, LustreOptions
from lb_lustre.server import Server
from lbcore.plugins.types import Finding

_NEAR_HOURS = 72
"""Less than this until a server drops us is near."""


def check_feed(feed: Feed, options: ChangelogOptions, filesystem: str, job: str, now_ns: int) -> Iterator[Finding]:
    """One metadata server: its changelog on this node, and our registration where the server can be asked."""
    lctl, configured = options.lctl(feed.mdt), options.user_id(feed.mdt)
    if lctl is None and configured is None:
        yield Finding(
            what=f"{feed.mdt}: neither a server nor a user is configured: its changelog is never cleared",
            advice="set 'changelog.servers' or 'changelog.users' (docs/lustre.md)",
        )
    try:
        if lctl is None:
            feed.oldest(1)
            return
        found = look(Server(lctl, filesystem, feed.mdt), feed, options.user_name(job), configured, now_ns)
    except LustreError as error:
        yield Finding(what=str(error), advice="a run would stop at this")
        return
    yield from _of_backlog(found, job)


def _of_backlog(found: Backlog, job: str) -> Iterator[Finding]:
    if found.user is None:
        yield Finding(
            what=f"{found.mdt}: this job is not registered: nothing is recorded for it",
            advice=f"'lb lustre register {job}'; the next run scans",
        )
    if found.lacking:
        yield Finding(
            what=f"{found.mdt}: {', '.join(found.lacking)} is not recorded for {found.user}",
            advice="the next run registers anew, and scans; when this comes back after restarts of the server, set "
            "mdd.*.changelog_mask there for good",
        )
    if found.hours_left is not None and found.hours_left < _NEAR_HOURS:
        yield Finding(
            what=f"{found.mdt}: it drops {found.user} in {found.hours_left:.0f} hours; {found.waiting} records wait",
            advice=f"'lb collect {job}' now, and from cron every hour",
        )


def check_mounting(options: LustreOptions, path: bytes) -> Iterator[Finding]:
    """Whether this node could mount snapshots of the filesystem that ``path`` is on.

    :raises LustreError: when it is on none.
    """
    if options.filesystem and not options.device:
        find_device(path)  # else it is asked for the name, when they are listed
    there = os.path.realpath(options.folder)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            what=f"no snapshot can be mounted below {options.folder}: {there} is no directory that can be written to",
            advice="see to the permissions there, or set 'lustre.folder'",
        )
    for program in (options.mount[0], "umount"):
        if shutil.which(program) is None:
            yield Finding(
                what=f"no snapshot can be mounted: there is no program '{program}'",
                advice="install it, or set 'lustre.mount'",
            )
    client = (*options.client, "lctl")[0]
    if shutil.which(client) is None:
        yield Finding(
            what=f"there is no program '{client}': files that are read in a snapshot flood the servers' log",
            advice="install the client's tools, or set 'lustre.client'",
            fatal=False,
        )
