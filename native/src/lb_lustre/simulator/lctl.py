"""``python -m lb_lustre.simulator.lctl --control SOCKET ARGUMENTS…``: ``lctl`` on every server of a simulated Lustre.

What it prints, where, and its exit statuses are those of Lustre 2.17 (recordings j_cli, j_dereg, j_restart).
"""

from __future__ import annotations

import argparse
import errno
import fnmatch
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from lb_lustre.record import Type
from lb_lustre.simulator.client import ask

_USAGE = 4
_NO_DEVICE = 1
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LONGEST_NAME = 15
_MINIMAL_SIZE_BYTES = 16528
"""What an empty changelog takes (recordings: changelog_params_default)."""


class FailureError(Exception):
    """The command ends: what it prints on standard error (and output), and its status."""

    def __init__(self, status: int, error: str = "", output: str = "") -> None:
        super().__init__(error)
        self.status, self.error, self.output = status, error, output


class Lctl:
    """What commands need: the simulator, and the device that was named before the command."""

    def __init__(self, control: str, device: str | None) -> None:
        self._control = control
        self._device = device

    def ask(self, request: str, **arguments: Any) -> Any:
        """A request of the simulator; errors as the system gives them."""
        return ask(self._control, request, **arguments)

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


def main() -> None:
    """One command."""
    parser = argparse.ArgumentParser(prog="lb_lustre.simulator.lctl", description=__doc__)
    parser.add_argument("--control", required=True, help="the simulator's socket")
    parser.add_argument("--device", help="the target that the command is for")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    try:
        output, error, status = COMMANDS[chosen.command](Lctl(chosen.control, chosen.device), chosen.arguments), "", 0
    except FailureError as failure:
        output, error, status = failure.output, failure.error, failure.status
    except OSError as failed:
        output, status = "", failed.errno or 1
        error = f"error: {chosen.command}: {os.strerror(status)}"
    for text, stream in ((output, sys.stdout), (error, sys.stderr)):
        if text:
            print(text, file=stream)
    sys.exit(status)


if __name__ == "__main__":
    main()
