"""What the configuration says of a Lustre."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass, field

from lb_lustre.pace import Limit

FILESYSTEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,7}")
"""What the name of a filesystem, or of a snapshot of one, is made of."""

HSM = ("stub", "recall")
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
    """How ``lctl`` is called: ``MDT0000=ssh mds0 lctl`` for one metadata server, ``lctl`` for all the others (here)."""
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
            if command[-1:] != ("lctl",):
                raise ValueError(f"servers: '{server}' is no command that ends with lctl, such as 'ssh mds0 lctl'")
            if mdt in mdts:
                raise ValueError(f"servers: there are two commands for {mdt or 'all servers'}")
            mdts.append(mdt)

    def lctl(self, mdt: str) -> tuple[str, ...] | None:
        """What goes before ``lctl`` to run it on the server of ``mdt``; None when that cannot be asked."""
        commands = dict(map(_server, self.servers))
        command = commands.get(mdt, commands.get(None))
        return None if command is None else command[:-1]

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
    """The program that makes striped directories, and asks for the content of released files."""
    hsm: str = ""
    """What becomes of released files whose content the backup does not hold: ``stub``: they are made as released files;
    ``recall``: and HSM is asked for their content. They are not made when empty."""
    hsm_rebind: tuple[str, ...] = ()
    """What tells an archive that it has a file under another FID; old FID, new FID and the mount point follow."""

    def __post_init__(self) -> None:
        for item in self.pool_map:
            if "=" not in item:
                raise ValueError(f"pool_map: expected OLD=NEW, found '{item}'")
        if self.hsm not in ("", *HSM):
            raise ValueError(f"hsm: expected {' or '.join(map(repr, HSM))}, found {self.hsm!r}")
        if self.hsm_rebind and not self.hsm:
            raise ValueError("hsm_rebind: no file is rebound unless 'hsm' says that it is made")


@dataclass(frozen=True, kw_only=True, slots=True)
class LustreOptions:
    """``[job.NAME.lustre]``."""

    filesystem: str = ""
    """Name of the filesystem, such as ``scratch``; found from the source's mount when empty."""
    mgs: tuple[str, ...] = ()
    """What goes before ``lctl`` to run it on the MGS, such as ``["ssh", "mgs"]``; nothing when that is this node."""
    client: tuple[str, ...] = ()
    """The same for ``lctl`` on this node."""
    device: str = ""
    """What is mounted, ``{}`` being the snapshot's filesystem, as ``10.0.2.15@tcp:/{}``; from the source's mount when
    empty."""
    mount: tuple[str, ...] = ("mount", "-t", "lustre", "-o", "ro,user_xattr")
    """What mounts it; device and folder follow."""
    folder: str = "/run/lb/snapshots"
    """Where snapshots are mounted, each in a folder of its own."""
    barrier: bool = True
    """Hold up changes of metadata on all servers while the snapshot is made. Without it the servers' parts may not
    belong to one moment."""
    barrier_seconds: int = 30
    """How long the servers may be held up at most."""
    retries: int = 2
    """How often what was refused for the time being is tried again."""
    timeout_seconds: float = 600.0
    """How long one command may take."""

    def __post_init__(self) -> None:
        if self.device and "{}" not in self.device:
            raise ValueError(f"'device' needs a {{}} where the snapshot's filesystem goes, found {self.device!r}")
        if self.barrier_seconds < 1 or self.retries < 0 or self.timeout_seconds <= 0:
            raise ValueError("'barrier_seconds' is at least 1, 'retries' at least 0, 'timeout_seconds' more than 0")
        if not self.mount:
            raise ValueError("'mount' needs a command")
        if self.filesystem and not FILESYSTEM.fullmatch(self.filesystem):
            raise ValueError(f"{self.filesystem!r} is no name of a Lustre filesystem")
