"""``lfs`` on a client of a simulated Lustre: layouts, project ids and HSM of files."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os

from lb_lustre import layout
from lb_lustre.simulator.layout import ARCHIVED, EXISTS, FSXATTR, GET_FSXATTR, INHERIT_PROJECT, SET_FSXATTR
from lb_lustre.simulator.lfs_request import opened, simulator

_STRIPED, _ON_METADATA_SERVER = 0x1, 0x100
_UNITS = {"k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_END = (1 << 64) - 1


def _size(text: str) -> int:
    if text == "-1":
        return _END
    return int(text[:-1]) * _UNITS[text[-1]] if text[-1] in _UNITS else int(text)


def set_stripe(arguments: list[str]) -> None:
    """``setstripe [-E END] [-L mdt] [-c COUNT] [-S SIZE] …  PATH``: a new file, or the default of a directory.

    ``-d DIRECTORY`` takes the default away again.
    """
    *options, path = arguments
    wanted = b"" if options == ["-d"] else layout.emit(_wanted(options))
    flags = os.O_RDONLY if os.path.isdir(path) else os.O_WRONLY | os.O_CREAT
    with opened(path, flags) as descriptor:
        os.setxattr(descriptor, layout.XATTR, wanted)


def _wanted(options: list[str]) -> layout.Plain | layout.Composite:
    ends: list[int] = []
    parts: list[dict[str, str]] = [{}]
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option == "-E":
            parts += [{}] if ends else []
            ends.append(_size(value))
        else:
            parts[-1][option] = value
    plain = [_plain(part) for part in parts]
    return _composite(plain, ends) if ends else plain[0]


def _plain(part: dict[str, str]) -> layout.Plain:
    on_metadata_server = part.get("-L") == "mdt"
    return layout.Plain(
        pattern=_ON_METADATA_SERVER if on_metadata_server else _STRIPED, object_id=bytes(16),
        stripe_size=_size(part.get("-S", "4M")), stripe_count=0 if on_metadata_server else int(part.get("-c", "1")),
        stripe_offset=0xFFFF, pool=None, objects=b"",
    )  # fmt: skip


def _composite(plain: list[layout.Plain], ends: list[int]) -> layout.Composite:
    starts = [0, *ends]
    components = tuple(
        layout.Component(
            id=number + 1,
            flags=0,
            start=start,
            end=end,
            generation=0,
            time_stamp=bytes(8),
            padding=bytes(4),
            layout=one,
        )
        for number, (start, end, one) in enumerate(zip(starts, ends, plain, strict=False))
    )
    return layout.Composite(generation=1, flags=0, rest=bytes(16), components=components)


def get_stripe(arguments: list[str]) -> None:
    """``getstripe PATH``: nothing is printed."""
    (path,) = arguments
    with opened(os.path.dirname(os.path.abspath(path))):
        pass


def migrate(arguments: list[str]) -> None:
    """``migrate [-n] [-c COUNT] … FILE``: its content gets another layout; ``-n`` lets others write meanwhile."""
    *options, path = arguments
    request, below = simulator(path)
    wanted = layout.emit(_wanted([option for option in options if option != "-n"])).hex()
    with opened(path, os.O_RDWR):
        request("open_volatile", path=below)
        with opened(path) if "-n" in options else contextlib.nullcontext():
            request("lay_out_anew", path=below, value=wanted)


def swap_layouts(arguments: list[str]) -> None:
    """``swap_layouts FILE OTHER``."""
    one, other = arguments
    request, path = simulator(one)
    with opened(one, os.O_WRONLY), opened(other, os.O_WRONLY):
        request("swap_layouts", path=path, other=simulator(other)[1])


def show_hsm(arguments: list[str]) -> None:
    """``hsm_state FILE``: nothing is printed."""
    (path,) = arguments
    with opened(path):
        pass


def set_hsm(arguments: list[str]) -> None:
    """``hsm_set [--exists] [--archived] FILE``."""
    *options, path = arguments
    request, below = simulator(path)
    states = sum({"--exists": EXISTS, "--archived": ARCHIVED}[option] for option in options)
    with opened(path, os.O_WRONLY):
        request("set_hsm", path=below, states=states)


def recall(arguments: list[str]) -> None:
    """``hsm_restore FILE…``: whether the content comes back is not waited for, and told nobody."""
    for path in arguments:
        request, below = simulator(path)
        with opened(path):
            pass
        with contextlib.suppress(OSError):
            request("recall", path=below)


def project(arguments: list[str]) -> None:
    """``project [-p ID] [-s] [-r] [-d] [-C] PATH``: of a directory with ``-s``, all below too (seen)."""
    parser = argparse.ArgumentParser(prog="lfs project")
    parser.add_argument("-p", type=int, default=0, dest="number")
    parser.add_argument("-C", action="store_true", dest="clear")
    for option in "srd":
        parser.add_argument(f"-{option}", action="store_true")
    parser.add_argument("path")
    chosen = parser.parse_args(arguments)
    if chosen.d:
        with opened(chosen.path):
            pass
    else:
        _give(chosen.path, chosen.number, inherits=chosen.s, below=chosen.s or chosen.r)


def _give(path: str, number: int, *, inherits: bool, below: bool) -> None:
    with opened(path) as descriptor:
        flags, size, extents, _, cow, rest = FSXATTR.unpack(fcntl.ioctl(descriptor, GET_FSXATTR, bytes(FSXATTR.size)))
        flags = flags | INHERIT_PROJECT if inherits else flags & ~INHERIT_PROJECT
        fcntl.ioctl(descriptor, SET_FSXATTR, FSXATTR.pack(flags, size, extents, number, cow, rest))
    if below and os.path.isdir(path):
        with os.scandir(path) as entries:
            for entry in entries:
                _give(entry.path, number, inherits=inherits, below=True)
