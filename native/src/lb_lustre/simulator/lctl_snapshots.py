"""``lctl`` of the MGS: snapshots. Its words and statuses are those of Lustre 2.17.

(Recordings i_snapshot.commands, l_dirty.commands.)
"""

from __future__ import annotations

import argparse
import errno
import time
from collections.abc import Callable
from typing import Any

from lb_lustre.simulator.lctl_failure import FailureError

Ask = Callable[..., Any]


def _named(words: list[str], *flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_argument("-F", required=True)
    parser.add_argument("-n", default="")
    for flag in flags:
        if flag == "-f":
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, nargs="?" if flag == "-b" else None)
    return parser.parse_args(words)


def _create(ask: Ask, words: list[str]) -> str:
    given = _named(words, "-b", "-c", "-t")
    _answer(ask, "create", given.n, {errno.EEXIST: f"The snapshot {given.n} exists\n"})
    return ""


def _list(ask: Ask, words: list[str]) -> str:
    given = _named(words)
    found = [one for one in ask("snapshot_list") if given.n in ("", one["name"])]
    if given.n and not found:
        raise FailureError(errno.EINVAL, f"Can't list the snapshot {given.n}")
    listed = []
    for one in found:
        created = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(one["created"]))
        listed.append(
            f"\nfilesystem_name: {given.F}\nsnapshot_name: {one['name']}\nsnapshot_fsname: {one['filesystem']} \n"
            f"modify_time: {created}\ncreate_time: {created}\nstatus: {'mounted' if one['mounted'] else 'not mount'}"
        )
    return "\n".join(listed)


def _mount(ask: Ask, words: list[str]) -> str:
    name = _named(words).n
    said = {
        errno.EALREADY: f"The snapshot {name} has already been mounted by other",
        errno.EINVAL: f"Can't mount the snapshot {name}: Invalid argument",
    }
    filesystem = _answer(ask, "mount", name, said, otherwise="")
    return f"mounted the snapshot {name} with fsname {filesystem}"


def _umount(ask: Ask, words: list[str]) -> str:
    name = _named(words).n
    said = {
        errno.EALREADY: f"The snapshot {name} has not been mounted",
        errno.EINVAL: f"Can't umount the snapshot {name}: Invalid argument",
    }
    _answer(ask, "umount", name, said, otherwise="")
    return ""


def _destroy(ask: Ask, words: list[str]) -> str:
    given = _named(words, "-f")
    if given.f:
        try:
            ask("snapshot_umount", name=given.n)  # by force, one that is mounted too
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise FailureError(errno.EINVAL, f"Can't destroy the snapshot {given.n}") from error
    missing = "Miss snapshot piece on the OST0000. Use '-f' option if want to destroy it by force.\n"
    _answer(ask, "destroy", given.n, {errno.ENOENT: missing})
    return ""


def _answer(ask: Ask, command: str, name: str, said: dict[int, str], otherwise: str | None = None) -> Any:
    try:
        return ask(f"snapshot_{command}", name=name)
    except OSError as error:
        usual = f"Can't {command} the snapshot {name}" if otherwise is None else otherwise
        raise FailureError(error.errno or 1, said.get(error.errno or 1, "") + usual) from error


COMMANDS: dict[str, Callable[[Ask, list[str]], str]] = {
    "snapshot_create": _create,
    "snapshot_list": _list,
    "snapshot_mount": _mount,
    "snapshot_umount": _umount,
    "snapshot_destroy": _destroy,
    "set_param": lambda ask, words: "",
}
"""Each gets a way to ask the simulator, and the words behind its name, and returns what it prints."""
