"""``lfs`` on a client of a simulated Lustre: directories on servers, and migrations. Called by the stand-in of ``lfs``.

What the real one does to files and directories beside its request, such as opening them, this one does too, in the same
order: it is recorded (recordings ``e_dne``, ``f_layout``, ``h_misc``, ``k_mtime``).
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
from collections.abc import Callable

from lb_lustre.simulator import lfs_changelog, lfs_files
from lb_lustre.simulator.lfs_request import opened, simulator
from lb_lustre.simulator.objects import hash_of

_HASHES = {"all_char": 1, "fnv_1a_64": 2, "crush": 3, "crush2": 4}
_DEFAULT_STRIPES = struct.Struct("<IIIIIBB26s")  # struct lmv_user_md_v1 (lustre_user.h)
_MAGIC = 0x0CD30CD0


def _stripes(command: argparse.ArgumentParser) -> None:
    command.add_argument("-c", type=int, default=1, dest="count")
    command.add_argument("-i", type=int, default=-1, dest="first")
    command.add_argument("-H", choices=_HASHES, default=None, dest="hash")


def make_directory(arguments: list[str]) -> None:
    """``mkdir [-c COUNT] [-i MDT] [-H HASH] DIRECTORY…``."""
    parser = argparse.ArgumentParser(prog="lfs mkdir")
    _stripes(parser)
    parser.add_argument("directory", nargs="+")
    chosen = parser.parse_args(arguments)
    for directory in chosen.directory:
        request, path = simulator(directory)
        kind = _HASHES.get(chosen.hash, 0)
        with opened(os.path.dirname(os.path.abspath(directory))):
            request("make_striped", path=path, count=chosen.count, first=chosen.first, kind=kind)


def set_stripes(arguments: list[str]) -> None:
    """``setdirstripe``: as ``mkdir``, or with ``-D`` what new directories below get."""
    if "-D" not in arguments:
        make_directory(arguments)
        return
    parser = argparse.ArgumentParser(prog="lfs setdirstripe")
    _stripes(parser)
    parser.add_argument("-D", action="store_true")
    parser.add_argument("--max-inherit", type=int, default=0)
    parser.add_argument("--max-inherit-rr", type=int, default=0)
    parser.add_argument("directory")
    chosen = parser.parse_args(arguments)
    value = _DEFAULT_STRIPES.pack(
        _MAGIC, chosen.count, chosen.first & 0xFFFFFFFF, _HASHES.get(chosen.hash, 0), 0, chosen.max_inherit,
        chosen.max_inherit_rr, bytes(26),
    )  # fmt: skip
    request, path = simulator(chosen.directory)
    with opened(chosen.directory):
        request("stripe_by_default", path=path, value=value.hex())


def get_stripes(arguments: list[str]) -> None:
    """``getdirstripe DIRECTORY…``: which servers they are on is not printed."""
    for directory in arguments:
        with opened(directory):
            pass


def migrate(arguments: list[str]) -> None:
    """``migrate -m MDT[,MDT…] [-c COUNT] DIRECTORY…``: with all that is below. Without ``-m``, a file."""
    if "-m" not in arguments:
        lfs_files.migrate(arguments)
        return
    parser = argparse.ArgumentParser(prog="lfs migrate")
    parser.add_argument("-m", required=True, dest="mdts")
    parser.add_argument("-c", type=int, default=1, dest="count")
    parser.add_argument("directory", nargs="+")
    chosen = parser.parse_args(arguments)
    first, *others = (int(number) for number in chosen.mdts.split(","))
    servers = [first, *others, *(number for number in range(chosen.count) if number not in (first, *others))]
    for directory in chosen.directory:
        _migrate(directory, servers[: chosen.count])


def _migrate(directory: str, servers: list[int]) -> None:
    """One directory becomes another object, then each entry moves into it (section 9, item 12)."""
    request, path = simulator(directory)
    with opened(directory):
        pass
    old = request("fid_of", path=path)
    request("migrate", path=path, mdt=servers[0])
    with opened(directory):
        for entry in sorted(os.scandir(directory), key=lambda one: os.fsencode(one.name), reverse=True):
            mdt = servers[hash_of(os.fsencode(entry.name)) % len(servers)]
            if entry.is_dir(follow_symlinks=False):
                _migrate(entry.path, [mdt])
                continue
            if entry.is_file(follow_symlinks=False):
                with opened(entry.path, os.O_WRONLY):
                    pass
            request("migrate_entry", path=os.path.join(path, entry.name), mdt=mdt, source=old)
    request("migrated", path=path, servers=servers)


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "changelog": lfs_changelog.show,
    "changelog_clear": lfs_changelog.clear,
    "getdirstripe": get_stripes,
    "getstripe": lfs_files.get_stripe,
    "migrate": migrate,
    "hsm_restore": lfs_files.recall,
    "hsm_set": lfs_files.set_hsm,
    "hsm_state": lfs_files.show_hsm,
    "mkdir": make_directory,
    "project": lfs_files.project,
    "setdirstripe": set_stripes,
    "setstripe": lfs_files.set_stripe,
    "swap_layouts": lfs_files.swap_layouts,
}


def main() -> int:
    """One command; what is wrong goes to the standard error, as from the real one."""
    _, command, *arguments = sys.argv
    if command not in _COMMANDS:
        print(f"lfs: '{command}' is not a command of this stand-in", file=sys.stderr)
        return 1
    try:
        _COMMANDS[command](arguments)
    except OSError as error:
        print(f"lfs {command}: {' '.join(arguments)}: {error.strerror}", file=sys.stderr)
        return error.errno or 1
    return 0
