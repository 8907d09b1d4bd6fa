"""Make files and directories of a Lustre as they were: layouts, default layouts, stripes, project ids.

A layout is given to a file before anything is written to it: setting it on a file that has objects succeeds and does
nothing (section 7 of the reference).
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import subprocess
from collections.abc import Callable, Mapping

from lb_lustre import extras, layout
from lb_lustre.errors import LustreError

# linux/fs.h: struct fsxattr and its ioctls.
_FSXATTR = struct.Struct("=IIIII8s")
_GET_FSXATTR, _SET_FSXATTR = 0x801C581F, 0x401C5820
_INHERIT_PROJECT = 0x200
# struct lmv_user_md_v1 (lustre_user.h): magic, stripes, first server, hash, type, levels inherited, of them in turn.
_DEFAULT_STRIPES = struct.Struct("<IIIIIBB")
_ANY_SERVER = 0xFFFFFFFF
_HASHES = {1: "all_char", 2: "fnv_1a_64", 3: "crush", 4: "crush2"}
_HASH_KIND = 0xFFFF
_LFS_SECONDS = 60


class Recreating:
    """Gives new objects what Lustre kept with the old ones. What cannot be had is told, and stops nothing."""

    def __init__(self, pool_map: Mapping[bytes, bytes], lfs: str) -> None:
        """
        :param pool_map: other names for pools; an empty one for no pool.
        :param lfs: the program ``lfs``.
        """
        self._pool_map = pool_map
        self._lfs = lfs

    def make(self, directory: int, name: bytes, mode: int, kept: Mapping[str, bytes]) -> list[str]:
        """An empty file or directory ``name`` in the open ``directory``; returns what could not be made anew.

        :raises OSError: when it cannot be made at all.
        """
        failed: list[str] = []
        if stat.S_ISREG(mode):
            os.mknod(name, stat.S_IFREG | 0o600, dir_fd=directory)
        elif extras.DIRECTORY_LAYOUT not in kept or not tell(
            failed, "stripes of the directory", lambda: self._make_striped(directory, name, kept)
        ):
            os.mkdir(name, 0o700, dir_fd=directory)
        return failed + self.give(directory, name, mode, kept)

    def give(self, directory: int, name: bytes, mode: int, kept: Mapping[str, bytes]) -> list[str]:
        """What can be given to a file without content, or to a directory, that is there."""
        failed: list[str] = []
        path = path_in(directory, name)
        of = extras.LAYOUT if stat.S_ISREG(mode) else extras.DEFAULT_LAYOUT
        if of in kept:
            tell(failed, "layout" if stat.S_ISREG(mode) else "default layout", lambda: self._lay_out(path, kept[of]))
        if extras.DEFAULT_DIRECTORY_LAYOUT in kept:
            wanted = kept[extras.DEFAULT_DIRECTORY_LAYOUT]
            tell(failed, "default layout of directories", lambda: self._stripe_by_default(directory, name, wanted))
        tell(failed, "project id", lambda: give_project(path, mode, kept.get(extras.PROJECT)))
        return failed

    def _lay_out(self, path: bytes, blob: bytes) -> None:
        wanted = layout.for_new_file(layout.parse(blob), self._pool_map)
        try:
            os.setxattr(path, layout.XATTR, layout.emit(wanted), follow_symlinks=False)
        except OSError as error:
            names = b", ".join(sorted(layout.pools(wanted))).decode(errors="replace")
            raise OSError(error.errno, f"{error.strerror}; pool {names}" if names else error.strerror) from error

    def _make_striped(self, directory: int, name: bytes, kept: Mapping[str, bytes]) -> None:
        _, count, first, kind, *_ = extras.STRIPES.unpack(kept[extras.DIRECTORY_LAYOUT])
        self._run(directory, name, "mkdir", "-c", str(count), "-i", str(first), *_hash_option(kind))

    def _stripe_by_default(self, directory: int, name: bytes, wanted: bytes) -> None:
        if extras.read(path_in(directory, name), stat.S_IFDIR).get(extras.DEFAULT_DIRECTORY_LAYOUT) == wanted:
            return  # inherited
        _, count, first, kind, _, inherited, in_turn = _DEFAULT_STRIPES.unpack_from(wanted)
        self._run(
            directory, name, "setdirstripe", "-D", "-c", str(count), "-i", "-1" if first == _ANY_SERVER else str(first),
            *_hash_option(kind), "--max-inherit", str(inherited), "--max-inherit-rr", str(in_turn),
        )  # fmt: skip

    def _run(self, directory: int, name: bytes, *arguments: str) -> None:
        """``lfs`` on one directory, which it reaches by the descriptor that it inherits.

        :raises LustreError: when it fails.
        """
        done = subprocess.run(
            [self._lfs, *arguments, path_in(directory, name)], pass_fds=(directory,), umask=0o077, check=False,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_LFS_SECONDS,
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().replace("\n", "; ")
            raise LustreError(f"lfs {arguments[0]} ended with status {done.returncode}: {said}")


def tell(failed: list[str], what: str, do: Callable[[], object]) -> bool:
    """Whether something could be done; if not, what, and the reason, is added to ``failed``."""
    try:
        do()
    except OSError as error:
        failed.append(f"{what} ({error.strerror})")
    except (LustreError, ValueError, struct.error, subprocess.SubprocessError) as error:
        failed.append(f"{what} ({error})")
    else:
        return True
    return False


def path_in(directory: int, name: bytes) -> bytes:
    """How a name in an open directory is reached by its path."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def _hash_option(kind: int) -> tuple[str, ...]:
    """``-H``, for a kind that has a name; the servers choose for others."""
    name = _HASHES.get(kind & _HASH_KIND)
    return () if name is None else ("-H", name)


def give_project(path: bytes, mode: int, wanted: bytes | None) -> None:
    """Before content, so that it counts in the right quota. What is new in a directory of a project belongs to it too.

    That new entries inherit it cannot be asked without opening the directory; nearly every directory of a project is
    set up so.
    """
    if extras.read(path, mode).get(extras.PROJECT) == wanted:
        return
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        flags, *sizes, _, copied, padding = _FSXATTR.unpack(fcntl.ioctl(fd, _GET_FSXATTR, bytes(_FSXATTR.size)))
        inherited = _INHERIT_PROJECT if stat.S_ISDIR(mode) and wanted else 0
        project = int(wanted or b"0")
        new = _FSXATTR.pack(flags & ~_INHERIT_PROJECT | inherited, *sizes, project, copied, padding)
        fcntl.ioctl(fd, _SET_FSXATTR, new)
    finally:
        os.close(fd)
