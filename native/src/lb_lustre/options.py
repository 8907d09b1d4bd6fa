"""What the configuration says of a Lustre."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass, field

from lb_lustre.pace import Limit

READERS = ("auto", "device", "library")
_MDT = re.compile(r"(MDT[0-9a-f]{4})=(.+)")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,14}")
"""Of a changelog user (section 4 of the reference)."""
_NAME_BYTES = 15
_DIGEST_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangelogOptions:
    """``[job.NAME.changelog]``.

    :raises ValueError: for what a server would refuse or misunderstand.
    """

    filesystem: str = ""
    """Name of the filesystem, such as ``scratch``; found from the source's mount when empty."""
    users: tuple[str, ...] = field(default=())
    """The registered users as ``MDT0000=cl1-lb-home``; not needed where the servers can be asked."""
    servers: tuple[str, ...] = field(default=())
    """How ``lctl`` is called: ``MDT0000=ssh mds0 lctl`` for one metadata server, ``lctl`` for all the others."""
    user: str = ""
    """The name under which this job is registered; ``lb-JOB`` when empty."""
    max_open: float = 0
    """Report files that are open for longer than so many hours; 0: none."""
    devices: str = "/dev"
    """The folder of the character devices ``changelog-*``."""
    reader: str = "auto"
    """By what changelogs are read: ``device``, ``library`` (liblustreapi), or ``auto``: the devices where they are."""
    threads: int = 16
    """How many objects are looked at at the same time."""
    flush_seconds: float = 60.0
    """For so long, before a snapshot, writers are made to send what they have cached; 0: not at all."""
    max_metadata_ops: int | str | None = None
    """Operations per second that each metadata server is asked at most, or the path of a file that holds the number."""

    def __post_init__(self) -> None:
        for user in self.users:
            if not _MDT.fullmatch(user):
                raise ValueError(f"users: expected something like 'MDT0000=cl1-lb-home', found '{user}'")
        if self.user and not _NAME.fullmatch(self.user):
            raise ValueError(
                f"user: '{self.user}' cannot be the name of a changelog user: a letter, then letters, digits, '_' and "
                f"'-', {_NAME_BYTES} characters at most"
            )
        if self.flush_seconds < 0:
            raise ValueError("flush_seconds must not be negative")
        if self.max_metadata_ops is not None:
            Limit(value=self.max_metadata_ops)
        if self.reader not in READERS:
            raise ValueError(f"reader must be one of {', '.join(READERS)}, not '{self.reader}'")
        if self.max_open < 0:
            raise ValueError(f"max_open: expected a number of hours, found {self.max_open}")
        mdts: list[str | None] = []
        for server in self.servers:
            mdt, command = _server(server)
            if not command:
                raise ValueError(f"servers: '{server}' names no command, such as 'ssh mds0 lctl'")
            if mdt in mdts:
                raise ValueError(f"servers: there are two commands for {mdt or 'all servers'}")
            mdts.append(mdt)

    def lctl(self, mdt: str) -> tuple[str, ...] | None:
        """The words of the command that is ``lctl`` on the server of ``mdt``; None when it cannot be asked."""
        commands = dict(map(_server, self.servers))
        return commands.get(mdt, commands.get(None))

    def user_id(self, mdt: str) -> str | None:
        """The id of the job's user on a server, where ``users`` tells."""
        return dict(user.split("=", 1) for user in self.users).get(mdt)

    def user_name(self, job: str) -> str:
        """The name under which a job is registered: its own, or ``lb-JOB``, shortened where that is too long."""
        name = f"lb-{job}"
        if self.user or _NAME.fullmatch(name):
            return self.user or name
        digest = hashlib.sha256(job.encode()).hexdigest()[:_DIGEST_BYTES]
        kept = re.sub(r"[^A-Za-z0-9_-]", "_", name)[: _NAME_BYTES - _DIGEST_BYTES - 1]
        return f"{kept}-{digest}"


def _server(written: str) -> tuple[str | None, tuple[str, ...]]:
    """Metadata server (None: all the others), and the words of the command."""
    found = _MDT.fullmatch(written)
    mdt, command = found.groups() if found else (None, written)
    return mdt, tuple(shlex.split(command))


@dataclass(frozen=True, kw_only=True, slots=True)
class LustreExtrasOptions:
    """``[job.NAME.lustre-extras]``: for ``lb restore``."""

    pool_map: tuple[str, ...] = ()
    """Pools that have another name where files are restored, as ``OLD=NEW``; ``OLD=`` for no pool."""
    lfs: str = "lfs"
    """The program that makes striped directories."""

    def __post_init__(self) -> None:
        for item in self.pool_map:
            if "=" not in item:
                raise ValueError(f"pool_map: expected OLD=NEW, found '{item}'")
