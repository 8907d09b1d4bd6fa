"""Files whose content is in an archive of HSM, made anew without it: ``lb restore`` with the option ``hsm``.

The archive knows a file by its FID, and the new one has another. So each new file carries the old FID in an extended
attribute, until the archive is told. Sources: section 7 of the reference (``llapi_hsm_import``); ``lhsmtool_posix
--rebind OLD NEW MOUNT``, which renames what the archive has, and asks nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TypedDict

from lb_lustre import extras, fid, layout
from lb_lustre._lustreapi import Library
from lb_lustre.errors import LustreError, LustreUnavailableError
from lb_lustre.lctl import run
from lb_lustre.mounts import find_mount
from lb_lustre.options import LustreExtrasOptions
from lb_lustre.proof import answers
from lb_lustre.recreate import give_project, path_in, tell
from lb_lustre.servers import Servers
from lb_lustre.servers import name as name_of_server
from lbcore import _posix
from lbcore.model import ObjectId
from lbcore.plugins.types import Absent
from lbcore.source import look_at_root

MARK = "trusted.lb.hsm_fid"
"""Of a file that was made without content: the FID by which the archive has it; gone once it was rebound."""

_SECONDS = 600
_RAID0, _OVERSTRIPED = 0x001, 0x200
_ALL_SERVERS = 0xFFFF


class _Striping(TypedDict, total=False):
    stripe_size: int
    stripe_count: int
    pattern: int
    pool: bytes | None


class HsmStubs:
    """Makes released files, on the filesystem that a directory is on (see ``lbcore.plugins.types.Stubs``)."""

    def __init__(self, root: bytes, pool_map: Mapping[bytes, bytes], options: LustreExtrasOptions) -> None:
        """
        :param pool_map: other names for pools; an empty one for no pool.
        """
        self._root = root
        self._pool_map = pool_map
        self._options = options

    @cached_property
    def _mount(self) -> bytes:
        return find_mount(self._root)

    @cached_property
    def _servers(self) -> Servers:
        return Servers(self._mount)

    def make(self, directory: int, name: bytes, file: Absent) -> list[str]:
        """A released file with the layout of the original, where that is a plain one.

        :raises LustreError: when the file itself may still be there, or its archive is not known, or has lost it.
        """
        states, archive = extras.hsm_state(file.extras)
        if not states & extras.HSM_RELEASED:
            raise LustreError("which archive has it is not in the backup either (only root sees that)")
        if states & extras.HSM_LOST:
            raise LustreError("HSM has marked it as lost in the archive, too")
        self._refuse_if_there(file.id)
        path, failed = path_in(directory, name), list[str]()
        if not tell(failed, "layout", lambda: _import(path, file, archive, _striping(file.extras, self._pool_map))):
            _import(path, file, archive, {})
        try:
            os.setxattr(path, MARK, fid.text(file.id).encode(), follow_symlinks=False)
        except BaseException:
            os.unlink(name, dir_fd=directory)
            raise
        # This opens it, which brings no content back: 'lfs hsm_state' opens files, too.
        tell(failed, "project id", lambda: give_project(path, file.mode, file.extras.get(extras.PROJECT)))
        return failed

    def bind(self, directory: int, name: bytes, file: Absent) -> str:
        """Have the archive told of the new FID, and the content asked for, as the options say."""
        path, failed = path_in(directory, name), list[str]()
        told = [f"made without content, which is in archive {extras.hsm_state(file.extras)[1]} of HSM"]
        try:
            new, old = fid.text(_posix.look(directory, name)[0]), _marked(path)
        except OSError as error:
            return f"{told[0]}; its FIDs cannot be read ({error.strerror})"
        if old is None:
            # By an earlier restore, and rebound; or it is another file, and the archive's copy of that is not ours.
            told = ["there already, without content; nothing was rebound"]
        elif self._options.hsm_rebind:
            if not tell(failed, "not rebound", partial(self._rebind, path, old, new)):
                return "; ".join([*told, *failed, f"{old} {new}"])
            old = None
        if self._options.hsm == "recall" and tell(failed, "not asked for", lambda: self._ask_for(new)):
            told.append("asked for")
        return "; ".join([*told, *failed, *([] if old is None else [f"to be rebound: {old} {new}"])])

    def _refuse_if_there(self, original: ObjectId) -> None:
        """What the archive has of a file that is there belongs to that file. That none is there must be certain."""
        text = fid.text(original)
        try:
            os.lstat(self._mount + b"/.lustre/fid/" + text.encode())
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
        else:
            raise LustreError(f"what HSM has belongs to {text}, which is on this filesystem")
        try:
            server = self._servers.of(original)
        except LustreUnavailableError:
            raise
        except LustreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return  # FIDs of that sequence were never given away: it is another filesystem
            raise
        if look_at_root(self._mount)[0] != fid.ROOT or not answers(self._mount, self._servers, server):
            raise LustreError(
                f"whether {text}, to which it belongs, is on this filesystem cannot be told: the whole of it is to be "
                f"mounted, and .lustre/lost+found/{name_of_server(server)} to be there, which LFSCK makes"
            )

    def _rebind(self, path: bytes, old: str, new: str) -> None:
        _run([*self._options.hsm_rebind, old, new, os.fsdecode(self._mount)])
        os.removexattr(path, MARK, follow_symlinks=False)

    def _ask_for(self, new: str) -> None:
        _run([self._options.lfs, "hsm_restore", os.fsdecode(self._mount + b"/.lustre/fid/" + new.encode())])


def _run(command: Sequence[str]) -> None:
    answer = run(command, timeout_seconds=_SECONDS)
    if answer.status:
        raise LustreError(f"'{os.path.basename(command[0])}' ended with status {answer.status}: {answer.reason}")


def _import(path: bytes, file: Absent, archive: int, striping: _Striping) -> None:
    Library().hsm_import(
        path, archive=archive, mode=file.mode, uid=file.uid, gid=file.gid, size=file.size, mtime_ns=file.mtime_ns,
        **striping,
    )  # fmt: skip


def _striping(kept: Mapping[str, bytes], pool_map: Mapping[bytes, bytes]) -> _Striping:
    """What ``hsm_import`` is given of a layout; an archive that kept a layout uses its own once the content is back.

    :raises LustreError: for a layout that cannot be given to it.
    """
    if extras.LAYOUT not in kept:
        return {}
    wanted = layout.for_new_file(layout.parse(kept[extras.LAYOUT]), pool_map)
    if not isinstance(wanted, layout.Plain) or wanted.pattern & ~_OVERSTRIPED != _RAID0:
        raise LustreError("a file without content can have stripes of one kind only")
    return {
        "stripe_size": wanted.stripe_size,
        "stripe_count": -1 if wanted.stripe_count == _ALL_SERVERS else wanted.stripe_count,
        "pattern": wanted.pattern,
        "pool": wanted.pool or None,
    }


def _marked(path: bytes) -> str | None:
    try:
        return os.getxattr(path, MARK, follow_symlinks=False).decode()
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise
