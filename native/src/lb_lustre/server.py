"""Ask one metadata server about its changelog, and register with it: ``lctl``, here or through ssh.

Texts and exit statuses are those of Lustre 2.17 (recordings j_cli, j_dereg, j_restart), and the older forms of
section 4 of the reference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lb_lustre import fid
from lb_lustre.errors import LustreError
from lb_lustre.lctl import Answer, Lctl
from lbcore.model import ObjectId

NEEDED = (
    "CREAT", "MKDIR", "HLINK", "SLINK", "MKNOD", "UNLNK", "RMDIR", "RENME", "RNMTO", "OPEN", "CLOSE", "LYOUT", "TRUNC",
    "SATTR", "XATTR", "HSM", "MTIME", "CTIME", "MIGRT", "FLRW", "RESYNC",
)  # fmt: skip
"""The types of records that a backup needs: all but reading (ATIME, GXATR) and what was refused (NOPEN)."""

_TIMEOUT_SECONDS = 120
PARAMETERS = ("users", "current_mask", "size", "gc", "max_idle_time", "max_idle_indexes")
_VALUE = re.compile(r"mdd\.[^=\s]+\.changelog_(\w+)=(.*)")
_CURRENT = re.compile(r"current[_ ]index: (\d+)")
_USER = re.compile(r"(cl\d+(?:-(\S+))?)\s+(\d+)(?:\s+\((\d+)\))?(?:\s+mask=(\S+))?\s*")
_FID = re.compile(r"\[0x[0-9a-f]+:0x[0-9a-f]+:0x[0-9a-f]+\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """Who is registered with a metadata server."""

    id: str
    """``cl3-lb-home``."""
    name: str
    """``lb-home``; empty for one that has no name."""
    cleared: int
    """It needs no record up to this index."""
    idle_seconds: int | None
    """Since it cleared last; None where the server does not tell."""
    mask: frozenset[str] | None
    """What it asks for; None where it did not say, or the server does not tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """A metadata server's changelog."""

    current: int
    """Index of the last record."""
    users: tuple[User, ...]
    mask: frozenset[str] | None
    """What is recorded now; None where the server does not tell."""
    size_bytes: int | None
    removes_idle: bool
    """Whether the server deregisters users that do not clear."""
    max_idle_seconds: int
    max_idle_records: int

    def user(self, name: str, configured: str | None = None) -> User | None:
        """The user with the id that is configured; else the one of that name."""
        by_id = (user for user in self.users if user.id == configured)
        return next(by_id, None) or next((user for user in self.users if user.name == name), None)

    def lacking(self, user: User) -> list[str]:
        """The types that a backup needs and ``user`` does not get, or would not if it were alone."""
        known = [mask for mask in (user.mask, self.mask) if mask is not None]
        return [kind for kind in NEEDED if any(kind not in mask for mask in known)]


class Server:
    """One metadata server, by its ``lctl``."""

    def __init__(self, prefix: Sequence[str], filesystem: str, mdt: str) -> None:
        """
        :param prefix: what goes before ``lctl`` (see ``lb_lustre.lctl``).
        :param mdt: such as ``MDT0000``.
        """
        self._lctl = Lctl(prefix, timeout_seconds=_TIMEOUT_SECONDS)
        self.mdt = mdt
        self._device = f"{filesystem}-{mdt}"

    def state(self) -> State:
        """What there is.

        :raises LustreError: when the server cannot be asked, or answers what is not understood.
        """
        # What an older server does not have makes get_param fail, after it has printed the rest.
        done = self._run("get_param", *(f"mdd.{self._device}.changelog_{name}" for name in PARAMETERS))
        found: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in done.output.splitlines():
            parameter = _VALUE.fullmatch(line)
            if parameter:
                lines = found.setdefault(parameter[1], [parameter[2]])
            else:
                lines.append(line)
        if "users" not in found:
            raise self._failed(done)
        current, users = _users(found["users"], self.mdt)

        def number(name: str, default: int) -> int:
            text = found.get(name, [""])[0].strip()
            return int(text) if text.isdigit() else default

        return State(
            current=current,
            users=users,
            mask=frozenset(found["current_mask"][0].split()) if "current_mask" in found else None,
            size_bytes=number("size", 0) if "size" in found else None,
            removes_idle=bool(number("gc", 1)),
            max_idle_seconds=number("max_idle_time", 2_592_000),
            max_idle_records=number("max_idle_indexes", 2_097_446_912),
        )

    def register(self, name: str) -> User:
        """Register a user who gets all that a backup needs.

        :raises LustreError: when the server refuses, or the user is not there afterwards.
        """
        done = self._run("--device", self._device, "changelog_register", "-u", name, "-m", ",".join(NEEDED))
        if done.status:
            raise self._failed(done)
        user = self.state().user(name)
        if user is None:
            raise LustreError(
                f"{self.mdt} registered '{name}' and does not list it; see 'lctl get_param mdd.*.changelog*'"
            )
        return user

    def deregister(self, user: User) -> None:
        """Give up a registration; what was recorded for it alone is gone.

        :raises LustreError: when the server refuses.
        """
        done = self._run("--device", self._device, "changelog_deregister", user.id)
        if done.status:
            raise self._failed(done)

    def open_files(self) -> list[ObjectId]:
        """The files that clients have open on this server, each once, in the order of FIDs.

        :raises LustreError: when the server cannot be asked.
        """
        proof = f"mdt.{self._device}.num_exports"  # where no client is connected the other pattern matches nothing
        done = self._run("get_param", proof, f"mdt.{self._device}.exports.*.open_files")
        if f"{proof}=" not in done.output:
            raise self._failed(done)
        return sorted({fid.parse(written) for written in _FID.findall(done.output)})

    def _run(self, *arguments: str) -> Answer:
        try:
            return self._lctl.run(*arguments)
        except LustreError as error:
            raise LustreError(f"{self.mdt}: {error}; see 'changelog.servers' in the configuration") from error

    def _failed(self, done: Answer) -> LustreError:
        said = " ".join((done.errors.strip() or done.output).split()) or f"it ended with status {done.status}"
        return LustreError(
            f"{self.mdt}: '{self._lctl}' failed: {said}; it must be called as root on the server that has "
            f"{self._device}"
        )


def _users(lines: list[str], mdt: str) -> tuple[int, tuple[User, ...]]:
    """``changelog_users``: the last index, and everybody who is registered."""
    current, users = None, []
    for line in filter(str.strip, lines):
        index, user = _CURRENT.fullmatch(line.strip()), _USER.fullmatch(line.strip())
        if index:
            current = int(index[1])
        elif user:
            users.append(
                User(
                    id=user[1],
                    name=user[2] or "",
                    cleared=int(user[3]),
                    idle_seconds=None if user[4] is None else int(user[4]),
                    mask=None if user[5] is None else frozenset(user[5].split(",")),
                )
            )
        elif not line.startswith("ID"):
            raise LustreError(f"{mdt} says of its changelog users what is not understood: '{line.strip()}'")
    if current is None:
        raise LustreError(f"{mdt} does not say which record was its last")
    return current, tuple(users)
