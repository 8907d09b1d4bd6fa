"""``lctl`` of a metadata server: registering, parameters. What it prints and its statuses are those of Lustre 2.17.

(Recordings j_cli, j_dereg, j_restart.)
"""

from __future__ import annotations

import argparse
import errno
import fnmatch
import re
from collections.abc import Callable, Iterator
from typing import Any

from lb_lustre.record import Type
from lb_lustre.simulator.lctl_failure import FailureError

_USAGE = 4
_NO_DEVICE = 1
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LONGEST_NAME = 15
_MINIMAL_SIZE_BYTES = 16528
"""What an empty changelog takes (recordings: changelog_params_default)."""


class Lctl:
    """What commands need: the simulator, and the device that was named before the command."""

    def __init__(self, ask: Callable[..., Any], device: str | None) -> None:
        """
        :param ask: makes a request of the simulator; errors are as the system gives them.
        """
        self.ask = ask
        self._device = device

    def mdt(self, usage: str) -> tuple[str, int]:
        """The device and its number."""
        if self._device is None:
            raise FailureError(_USAGE, output=usage)
        there = self.ask("parameters")
        if re.fullmatch(rf"{re.escape(there['filesystem'])}-OST[0-9a-f]{{4}}", self._device):
            raise FailureError(errno.ENOTTY, "error: changelog_register: Inappropriate ioctl for device")
        for number in range(len(there["mdts"])):
            if self._device == f"{there['filesystem']}-MDT{number:04x}":
                return self._device, number
        raise FailureError(
            _NO_DEVICE, f"No device found for name {self._device}: Invalid argument",
            "Reader error: 'Object not found' at 0",
        )  # fmt: skip


def register(lctl: Lctl, arguments: list[str]) -> str:
    """``changelog_register [-n] [-u NAME] [-m MASK]``."""
    usage = "usage: {--device MDTNAME} changelog_register [--help|-h]"
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("-u", "--user")
    parser.add_argument("-m", "--mask")
    parser.add_argument("-n", "--nameonly", action="store_true")
    chosen = parser.parse_args(arguments)
    device, mdt = lctl.mdt(usage)
    known = {kind.name for kind in Type}
    mask = None if chosen.mask is None else [word.upper() for word in chosen.mask.split(",")]
    if chosen.user is not None and len(chosen.user) > _LONGEST_NAME:
        raise FailureError(errno.ENAMETOOLONG, "error: changelog_register: File name too long")
    if (chosen.user is not None and not _NAME.fullmatch(chosen.user)) or not known.issuperset(mask or ()):
        raise FailureError(errno.EINVAL, "error: changelog_register: Invalid argument")
    try:
        user = lctl.ask("register", mdt=mdt, name=chosen.user, mask=mask)
    except FileExistsError:
        raise FailureError(errno.EEXIST, "error: changelog_register: User exists") from None
    return str(user) if chosen.nameonly else f"{device}: Registered changelog userid '{user}'"


def deregister(lctl: Lctl, arguments: list[str]) -> str:
    """``changelog_deregister ID|clID|-u NAME``."""
    usage = "deregister an existing changelog user\nusage: {--device MDTNAME} changelog_deregister [ID|clID]"
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("-u", "--user")
    parser.add_argument("id", nargs="?")
    chosen = parser.parse_args(arguments)
    device, mdt = lctl.mdt(usage)
    if (chosen.user is None) == (chosen.id is None):
        raise FailureError(_USAGE, output=usage)
    if chosen.id is not None and not re.fullmatch(r"(cl)?\d+(-\S+)?", chosen.id):
        said = f"error: Invalid argument: expect <ID> or cl<ID>[-name] got '{chosen.id}'"
        raise FailureError(_USAGE, said, usage)
    users = lctl.ask("parameters")["mdts"][mdt]["users"]
    number = (chosen.id or "").removeprefix("cl").partition("-")[0]
    for user in users:
        own_number, _, name = user.removeprefix("cl").partition("-")
        if own_number == number or (chosen.user is not None and name == chosen.user):
            lctl.ask("deregister", mdt=mdt, user=user)
            return f"{device}: Deregistered changelog user #{own_number}"
    raise FailureError(errno.ENOENT, "error: changelog_deregister: User not found")


def get_param(lctl: Lctl, arguments: list[str]) -> str:
    """``get_param [-n] PATTERN…``: of each, all parameters that match it."""
    bare = arguments[:1] == ["-n"]
    there = dict(_parameters(lctl.ask("parameters")))
    lines, missing = [], []
    for pattern in arguments[bare:]:
        matching = [name for name in there if fnmatch.fnmatchcase(name, pattern)]
        for name in matching:
            value = there[name]
            lines.append(value if bare else f"{name}={chr(10) if chr(10) in value else ''}{value}")
        if not matching:
            path = pattern.replace(".", "/")
            missing.append(f"error: get_param: param_path '{path}': No such file or directory")
    output = "\n".join(lines)
    if missing:
        raise FailureError(errno.ENOENT, "\n".join(missing), output)
    return output


def _parameters(there: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for number, mdt in enumerate(there["mdts"]):
        device = f"{there['filesystem']}-MDT{number:04x}"
        users = [f"current_index: {mdt['current_index']}", "ID                            index (idle) mask"]
        for name, user in mdt["users"].items():
            mask = f" mask={','.join(_in_order(user['mask']))}" if user["asked"] else ""
            users.append(f"{name:<15}{user['cleared']:>20} ({user['idle']}){mask}")
        yield f"mdd.{device}.changelog_users", "\n".join(users)
        yield f"mdd.{device}.changelog_mask", "MARK "
        yield f"mdd.{device}.changelog_current_mask", " ".join(_in_order(mdt["mask"])) + " "
        yield f"mdd.{device}.changelog_size", str(_MINIMAL_SIZE_BYTES + mdt["size_bytes"])
        yield f"mdd.{device}.changelog_gc", "1"
        yield f"mdd.{device}.changelog_max_idle_time", "2592000"
        yield f"mdd.{device}.changelog_max_idle_indexes", "2097446912"
        yield f"mdt.{device}.num_exports", "2"
        yield f"mdt.{device}.exports.0@lo.open_files", "\n".join(mdt["open_files"])


def _in_order(mask: list[str]) -> list[str]:
    """As the server lists types; MARK is always among them."""
    return [kind.name for kind in Type if kind.name in mask or kind == Type.MARK]


COMMANDS: dict[str, Callable[[Lctl, list[str]], str]] = {
    "changelog_register": register,
    "changelog_deregister": deregister,
    "get_param": get_param,
}
"""Each gets the arguments behind its name and returns what it prints."""
