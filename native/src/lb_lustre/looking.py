"""Look at objects of a view by their FIDs: attributes, all names, extras. Nothing is opened."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from typing import NamedTuple

from lb_lustre import extras, fid, link_ea
from lb_lustre.errors import LustreError
from lb_lustre.mounts import find_mount
from lb_lustre.pace import at_once
from lbcore import xattrs
from lbcore.model import Attributes, ObjectId, Observation, Seen, Unreadable, View
from lbcore.plugins.types import Pacing
from lbcore.scope import Scope
from lbcore.source import look_at_root

_KEPT_DIRECTORIES = 100_000
_DEEPEST = 10_000


class _Place(NamedTuple):
    """Where a directory is."""

    fid: ObjectId
    """Of the directory; of a striped one, when a shard was asked for."""
    inside: bool
    """Whether it lies in the source, and is covered."""
    path: bytes
    """Relative to the source."""


class Looking:
    """Looks at objects of one view, by FID. For several threads at once."""

    def __init__(self, view: View, scope: Scope, pacing: Pacing = at_once) -> None:
        self._scope = scope
        self._pacing = pacing
        self._by_fid = find_mount(view.root) + b"/.lustre/fid/"
        self._root, _ = look_at_root(view.root)
        self._places: OrderedDict[ObjectId, _Place] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, object_id: ObjectId) -> Seen:
        """One object: gone, outside of the source, or with all its names in it."""
        path = self._path(object_id)
        try:
            self._pacing(object_id, 1)
            there = os.lstat(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return Observation(id=object_id, attributes=None)
            return self._unreadable(object_id, error)
        except LustreError as error:
            return self._unreadable(object_id, error)
        if object_id == fid.ROOT:
            return Observation(id=object_id, attributes=None)  # it has no name, and the core looks at it itself
        try:
            return self._observe(object_id, path, there)
        except (OSError, LustreError) as error:
            return self._unreadable(object_id, error)  # what fails from here on is no sign that it is gone

    def _observe(self, object_id: ObjectId, path: bytes, there: os.stat_result) -> Seen:
        links = self._links(object_id)
        names = []
        for parent, name in links:
            place = self._place(parent)
            if place.inside and not self._excludes(place, name, stat.S_ISDIR(there.st_mode)):
                names.append((place.fid, name))
        untold = 0 if stat.S_ISDIR(there.st_mode) else max(0, there.st_nlink - len(links))
        inside = bool(names or untold)
        return Observation(
            id=object_id,
            attributes=_attributes(there),
            names=tuple(names),
            untold=untold,
            extras=xattrs.read(path) | extras.read(path, there.st_mode) if inside else {},
            link_target=os.readlink(path) if inside and stat.S_ISLNK(there.st_mode) else None,
        )

    def _path(self, object_id: ObjectId) -> bytes:
        return self._by_fid + fid.text(object_id).encode()

    def _links(self, object_id: ObjectId) -> list[tuple[ObjectId, bytes]]:
        self._pacing(object_id, 1)
        return link_ea.parse(os.getxattr(self._path(object_id), link_ea.XATTR, follow_symlinks=False)).names

    @staticmethod
    def _unreadable(object_id: ObjectId, error: OSError | LustreError) -> Unreadable:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Unreadable(path=fid.text(object_id).encode(), reason=reason, object=object_id)

    # -- what lies in the source --------------------------------------------------------------------------------

    def _excludes(self, place: _Place, name: bytes, is_directory: bool) -> bool:
        return not self._scope.all and self._scope.excludes(_join(place.path, name), is_directory)

    def _place(self, object_id: ObjectId) -> _Place:
        """Where a directory is: found by going up, name by name, to one that is known."""
        climbed: list[tuple[ObjectId, bytes]] = []
        at = object_id
        while (place := self._known(at)) is None:
            if len(climbed) > _DEEPEST:
                raise LustreError(f"the directories above {fid.text(object_id)} make a circle")
            links = self._links(at)
            if not links:
                raise LustreError(f"the link EA of {fid.text(at)} names no parent")
            parent, name = links[0]
            climbed.append((at, name))
            at = parent
        for directory, name in reversed(climbed):
            # A shard is called FID:NUMBER in the striped directory, and its entries are that one's.
            if not name.startswith(fid.text(directory).encode() + b":"):
                inside = place.inside and not self._excludes(place, name, True)
                place = _Place(directory, inside, _join(place.path, name))
            with self._lock:
                self._places[directory] = place
                if len(self._places) > _KEPT_DIRECTORIES:
                    self._places.popitem(last=False)
        return place

    def _known(self, object_id: ObjectId) -> _Place | None:
        if object_id == self._root:
            return _Place(object_id, True, b"")
        if object_id == fid.ROOT:
            return _Place(object_id, False, b"")
        with self._lock:
            return self._places.get(object_id)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _attributes(there: os.stat_result) -> Attributes:
    special = stat.S_ISCHR(there.st_mode) or stat.S_ISBLK(there.st_mode)
    return Attributes(
        mode=there.st_mode, uid=there.st_uid, gid=there.st_gid, nlink=there.st_nlink, size=there.st_size,
        mtime_ns=there.st_mtime_ns, ctime_ns=there.st_ctime_ns, rdev=there.st_rdev if special else 0,
    )  # fmt: skip
