"""Layouts, project ids, stripes and HSM of a simulated Lustre: what its extended attributes say and accept.

Follows section 7 of the reference and the recordings. Content lies in one ordinary file whatever the layout says.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
import struct
from typing import Any

from lb_lustre import layout
from lb_lustre.errors import LustreError
from lb_lustre.extras import (
    DEFAULT_STRIPES_XATTR,
    HSM_XATTR,
    PROJECT_XATTR,
    SERVERS_LAYOUT_XATTR,
    STRIPES,
    STRIPES_XATTR,
)

_STRIPE_BYTES = 1 << 20
_DEFAULT = layout.Plain(
    pattern=1, object_id=bytes(16), stripe_size=4 * _STRIPE_BYTES, stripe_count=1, stripe_offset=0xFFFF, pool=None,
    objects=b"",
)  # fmt: skip
_HSM = struct.Struct("<IIQQ")
# linux/fs.h: struct fsxattr and its ioctls, by which project ids are asked for and set.
FSXATTR = struct.Struct("=IIIII8s")
GET_FSXATTR, SET_FSXATTR = 0x801C581F, 0x401C5820
INHERIT_PROJECT = 0x200
EXISTS, RELEASED, ARCHIVED = 0x01, 0x04, 0x08
_ON_METADATA_SERVER = 0x100
"""LOV_PATTERN_MDT (lustre_user.h)."""
_IGNORED = ("dataver", "fid", "hsm", "lfsck_ns", "link", "lma", "lmv", "projid", "som", "version")
"""Setting these, in the namespace ``trusted``, succeeds and does nothing."""
POOLS = (b"", b"fast", b"flash")
"""The pools there are."""


class Kept:
    """What one object has beyond POSIX."""

    def __init__(self, mode: int, parent: Kept | None) -> None:
        self.is_directory = stat.S_ISDIR(mode)
        self.has_layout = stat.S_ISREG(mode)
        self.layout: layout.Layout | None = _DEFAULT if self.has_layout else None
        """Of a directory: the default for new files."""
        self.project, self.inherits_project = 0, False
        self.stripes = b""
        self.default_stripes = b""
        self.hsm = b""
        self.flags = 0
        """Of chattr(1); they are kept, and nobody obeys them."""
        if parent is None:
            return
        if parent.layout is not None and (self.has_layout or self.is_directory):
            self.layout = parent.layout
        if parent.inherits_project:
            self.project, self.inherits_project = parent.project, self.is_directory
        if self.is_directory:
            self.default_stripes = parent.default_stripes

    # -- as extended attributes -----------------------------------------------------------------------------------

    def listed(self) -> dict[str, bytes]:
        """Those that a list names."""
        found = {}
        if self.layout is not None:
            found[SERVERS_LAYOUT_XATTR] = layout.emit(self.layout)
            if self.has_layout:
                found[layout.XATTR] = found[SERVERS_LAYOUT_XATTR]
        for name, value in (
            (STRIPES_XATTR, self.stripes), (DEFAULT_STRIPES_XATTR, self.default_stripes), (HSM_XATTR, self.hsm),
        ):  # fmt: skip
            if value:
                found[name] = value
        return found

    def unlisted(self, name: str) -> bytes | None:
        """One that is there though no list names it."""
        if name == layout.XATTR and self.layout is not None:
            return layout.emit(self.layout)
        if name == PROJECT_XATTR and (self.is_directory or self.has_layout):
            return b"%d" % self.project
        return None

    def takes(self, name: str, value: bytes) -> bool:
        """Set one of these attributes; False for a name that is not one of them.

        :raises OSError: when the value is no layout, or names a pool that is not there.
        """
        if name in (layout.XATTR, SERVERS_LAYOUT_XATTR) and (self.is_directory or self.has_layout):
            self._lay_out(value)
            return True
        if name == DEFAULT_STRIPES_XATTR:
            self.default_stripes = value
            return True
        return name.startswith("trusted.") and name.removeprefix("trusted.") in _IGNORED

    def _lay_out(self, value: bytes) -> None:
        if self.is_directory and not value:
            self.layout = None
            return
        try:
            wanted = layout.template(layout.parse(value))
        except LustreError:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
        if not layout.pools(wanted) <= set(POOLS) or layout.is_released(wanted):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if self.is_directory or (self.layout is not None and not _has_objects(self.layout)):
            self.layout = wanted

    # -- what happens to it ---------------------------------------------------------------------------------------

    def instantiate(self, number: int, upto: int) -> int:
        """Content is written below ``upto`` bytes: each stripe gets an object.

        :returns: how many components beyond the first got theirs.
        """
        if self.layout is None:
            return 0
        before = _count_with_objects(self.layout)
        if not before or isinstance(self.layout, layout.Composite):
            self.layout = _with_objects(self.layout, number, upto)
        return _count_with_objects(self.layout) - max(before, 1)

    def stripe(self, count: int, first: int, kind: int, shards: list[bytes]) -> None:
        """The directory is made with stripes."""
        self.stripes = STRIPES.pack(0x0CD20CD0, count, first, kind, 1, 0, 0, 0, bytes(8), bytes(16)) + b"".join(shards)

    def lay_out_anew(self, wanted: layout.Layout, number: int) -> None:
        """``lfs migrate``: the content moves to other objects."""
        self.layout = _with_objects(wanted, number, 1)

    def set_hsm(self, states: int, archive: int) -> None:
        """The state is set (``struct hsm_attrs``)."""
        self.hsm = _HSM.pack(0, states, archive, 0)

    @property
    def is_on_metadata_server(self) -> bool:
        """Whether content begins there, and not on an object storage server (DoM)."""
        first = self.layout.components[0].layout if isinstance(self.layout, layout.Composite) else self.layout
        return isinstance(first, layout.Plain) and bool(first.pattern & _ON_METADATA_SERVER)

    @property
    def is_released(self) -> bool:
        """Whether the content is in the archive."""
        return bool(self.hsm and _HSM.unpack(self.hsm)[1] & RELEASED)

    def release(self, archive: int = 1, version: int = 7) -> None:
        """Archived, and the content dropped."""
        self.hsm = _HSM.pack(0, EXISTS | ARCHIVED | RELEASED, archive, version)
        self._set_pattern(layout.RELEASED)

    def import_released(self, wanted: dict[str, Any]) -> None:
        """``llapi_hsm_import``; what is 0 of the layout is as usual.

        :raises OSError: EINVAL for a pool that is not there.
        """
        pool = wanted["pool"].encode()
        if pool not in POOLS:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.layout = dataclasses.replace(
            _DEFAULT, pattern=wanted["pattern"] or _DEFAULT.pattern, pool=pool or None,
            stripe_size=wanted["stripe_size"] or _DEFAULT.stripe_size,
            stripe_count=wanted["stripe_count"] & 0xFFFF or _DEFAULT.stripe_count,
        )  # fmt: skip
        self.release(wanted["archive"], version=0)

    def recall(self) -> None:
        """The content comes back."""
        _, _, archive, version = _HSM.unpack(self.hsm)
        self.hsm = _HSM.pack(0, EXISTS | ARCHIVED, archive, version)
        self._set_pattern(0)

    def _set_pattern(self, flag: int) -> None:
        assert isinstance(self.layout, layout.Plain), "only plain layouts are released here"
        self.layout = dataclasses.replace(
            self.layout, pattern=self.layout.pattern & ~layout.RELEASED | flag, objects=b"", stripe_offset=0xFFFF
        )


def _has_objects(one: layout.Layout) -> bool:
    if isinstance(one, layout.Composite):
        return any(_has_objects(component.layout) for component in one.components)
    return isinstance(one, layout.Plain) and (bool(one.objects) or one.object_id != bytes(16))


def _count_with_objects(one: layout.Layout) -> int:
    if isinstance(one, layout.Composite):
        return sum(_has_objects(component.layout) for component in one.components)
    return int(_has_objects(one))


def _with_objects(one: layout.Layout, number: int, upto: int) -> layout.Layout:
    """A component gets its objects when it is written to, the first one at once."""
    if isinstance(one, layout.Composite):
        components = []
        for component in one.components:
            part = component.layout
            if not _has_objects(part) and (not component.start or component.start < upto):
                made = _with_objects(part, number, upto)
                assert not isinstance(made, layout.Composite)
                components.append(dataclasses.replace(component, flags=component.flags | 0x10, layout=made))
            else:
                components.append(component)
        changed = tuple(components) != one.components
        return dataclasses.replace(one, generation=one.generation + changed, components=tuple(components))
    if not isinstance(one, layout.Plain):
        return one
    stripes = 0 if one.stripe_count == 0xFFFF else one.stripe_count
    objects = b"".join(struct.pack("<QQII", number, 0x100000000, stripe, 0) for stripe in range(stripes))
    return dataclasses.replace(one, object_id=struct.pack("<QQ", number, 0x200000400), objects=objects)
