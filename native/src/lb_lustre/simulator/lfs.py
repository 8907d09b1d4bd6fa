"""``lfs mkdir`` and ``lfs setdirstripe -D`` on a simulated Lustre; called by the stand-in of ``lfs``."""

from __future__ import annotations

import argparse
import os
import struct
import sys

from lb_lustre.simulator.client import ask

_HASHES = {"all_char": 1, "fnv_1a_64": 2, "crush": 3, "crush2": 4}
_DEFAULT_STRIPES = struct.Struct("<IIIIIBB26s")  # struct lmv_user_md_v1 (lustre_user.h)
_MAGIC = 0x0CD30CD0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lfs")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("mkdir", "setdirstripe"):
        command = commands.add_parser(name)
        command.add_argument("-c", type=int, required=True, dest="count")
        command.add_argument("-i", type=int, default=-1, dest="first")
        command.add_argument("-H", choices=_HASHES, default=None, dest="hash")
        command.add_argument("directory")
        if name == "setdirstripe":
            command.add_argument("-D", action="store_true", required=True)
            command.add_argument("--max-inherit", type=int, default=0)
            command.add_argument("--max-inherit-rr", type=int, default=0)
    return parser


def main() -> int:
    """One command; what is wrong goes to the standard error, as from the real one."""
    chosen = _parser().parse_args()
    head, name = os.path.split(os.path.abspath(chosen.directory))
    folder, _, rest = os.path.realpath(head).partition("/mount/fs/")
    path = os.path.join(rest.partition("/")[2], name)
    kind = _HASHES.get(chosen.hash, 0)
    try:
        if chosen.command == "mkdir":
            ask(f"{folder}/control", "make_striped", path=path, count=chosen.count, first=chosen.first, kind=kind)
        else:
            value = _DEFAULT_STRIPES.pack(
                _MAGIC, chosen.count, chosen.first & 0xFFFFFFFF, kind, 0, chosen.max_inherit, chosen.max_inherit_rr,
                bytes(26),
            )  # fmt: skip
            ask(f"{folder}/control", "stripe_by_default", path=path, value=value.hex())
    except OSError as error:
        print(f"lfs {chosen.command}: error on '{chosen.directory}': {error.strerror}", file=sys.stderr)
        return error.errno or 1
    return 0
