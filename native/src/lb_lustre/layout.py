"""The layout of a file, as ``lustre.lov`` holds it: parsed, written, and freed of what only the original is.

Form: ``struct lov_user_md_v1``, ``lov_user_md_v3``, ``lov_comp_md_v1`` and ``lov_comp_md_entry_v1`` (lustre_user.h),
little endian; checked against recordings of Lustre 2.17.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from lb_lustre.errors import LustreError

XATTR = "lustre.lov"
RELEASED = 0x80000000
"""Of a pattern: the content is in the archive of HSM only."""

_V1, _V3, _COMPOSITE = 0x0BD10BD0, 0x0BD30BD0, 0x0BD60BD0
_PLAIN = struct.Struct("<II16sIHH")  # magic, pattern, object id, stripe size, stripe count, stripe offset
_POOL_BYTES = 16
_OBJECT_BYTES = 24
_ANY_OFFSET = 0xFFFF
_HEADER = struct.Struct("<IIIHH16s")  # magic, size, generation, flags, entries; mirrors and padding
_ENTRY = struct.Struct("<IIQQIII8s4s")  # id, flags, start, end, offset, size, generation; time stamp, padding
_INSTANTIATED = 0x10


@dataclass(frozen=True, kw_only=True, slots=True)
class Plain:
    """Stripes of one kind (v1; v3 where a pool is named)."""

    pattern: int
    object_id: bytes
    stripe_size: int
    """Bytes."""
    stripe_count: int
    stripe_offset: int
    pool: bytes | None
    """None in the form that has no room for one."""
    objects: bytes
    """What lies on which server: 24 bytes each; empty before the first write."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unknown:
    """A form that this program does not know; it is kept as it is."""

    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """A part of a composite layout: an extent of the file, of one mirror."""

    id: int
    flags: int
    start: int
    end: int
    generation: int
    time_stamp: bytes
    padding: bytes
    layout: Plain | Unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class Composite:
    """Progressive layouts, data on the metadata server, mirrors."""

    generation: int
    flags: int
    rest: bytes
    """Number of mirrors, and padding."""
    components: tuple[Component, ...]


Layout = Plain | Composite | Unknown


def parse(data: bytes) -> Layout:
    """Understand a blob.

    :raises LustreError: when it is of a known form and not whole.
    """
    if _magic(data) != _COMPOSITE:
        return _parse_simple(data)
    if len(data) < _HEADER.size:
        raise LustreError("a composite layout ends within its header")
    _, size, generation, flags, count, rest = _HEADER.unpack_from(data)
    if size != len(data) or _HEADER.size + count * _ENTRY.size > size:
        raise LustreError(f"a composite layout of {len(data)} bytes says that it has {size}, and {count} components")
    components = []
    for number in range(count):
        entry = _ENTRY.unpack_from(data, _HEADER.size + number * _ENTRY.size)
        identity, entry_flags, start, end, at, length, entry_generation, time_stamp, padding = entry
        if at < _HEADER.size + count * _ENTRY.size or at + length > size:
            raise LustreError("a component of a layout lies outside of it")
        layout = _parse_simple(data[at : at + length])
        components.append(
            Component(
                id=identity,
                flags=entry_flags,
                start=start,
                end=end,
                generation=entry_generation,
                time_stamp=time_stamp,
                padding=padding,
                layout=layout,
            )
        )
    return Composite(generation=generation, flags=flags, rest=rest, components=tuple(components))


def _magic(data: bytes) -> int:
    if len(data) < 4:
        raise LustreError(f"a layout of {len(data)} bytes is too short")
    return int.from_bytes(data[:4], "little")


def _parse_simple(data: bytes) -> Plain | Unknown:
    magic = _magic(data)
    if magic not in (_V1, _V3):
        return Unknown(data=data)
    start = _PLAIN.size + (_POOL_BYTES if magic == _V3 else 0)
    if len(data) < start or (len(data) - start) % _OBJECT_BYTES:
        raise LustreError(f"a layout of {len(data)} bytes ends within a part of it")
    _, pattern, object_id, stripe_size, stripe_count, stripe_offset = _PLAIN.unpack_from(data)
    pool = data[_PLAIN.size : start].rstrip(b"\0") if magic == _V3 else None
    return Plain(
        pattern=pattern, object_id=object_id, stripe_size=stripe_size, stripe_count=stripe_count,
        stripe_offset=stripe_offset, pool=pool, objects=data[start:],
    )  # fmt: skip


def emit(layout: Layout) -> bytes:
    """The blob of a layout: the inverse of ``parse``."""
    if isinstance(layout, Unknown):
        return layout.data
    if isinstance(layout, Plain):
        magic, pool = (_V1, b"") if layout.pool is None else (_V3, layout.pool.ljust(_POOL_BYTES, b"\0"))
        head = _PLAIN.pack(
            magic, layout.pattern, layout.object_id, layout.stripe_size, layout.stripe_count, layout.stripe_offset
        )
        return head + pool + layout.objects
    blobs = [emit(component.layout) for component in layout.components]
    at = _HEADER.size + len(blobs) * _ENTRY.size
    entries = b""
    for component, blob in zip(layout.components, blobs, strict=True):
        entries += _ENTRY.pack(
            component.id, component.flags, component.start, component.end, at, len(blob), component.generation,
            component.time_stamp, component.padding,
        )  # fmt: skip
        at += len(blob)
    header = _HEADER.pack(_COMPOSITE, at, layout.generation, layout.flags, len(blobs), layout.rest)
    return header + entries + b"".join(blobs)


def template(layout: Layout) -> Layout:
    """What another file of the same layout has too: without objects, their servers, and counts of changes.

    It is what ``lfs setstripe`` sends for a new file; equal layouts give equal templates.
    """
    if isinstance(layout, Plain):
        return dataclasses.replace(layout, object_id=bytes(16), stripe_offset=_ANY_OFFSET, objects=b"")
    if isinstance(layout, Unknown):
        return layout
    components = tuple(
        dataclasses.replace(
            component,
            flags=component.flags & ~_INSTANTIATED,
            generation=0,
            time_stamp=bytes(8),
            layout=_template_simple(component.layout),
        )
        for component in layout.components
    )
    return dataclasses.replace(layout, generation=0, components=components)


def _template_simple(layout: Plain | Unknown) -> Plain | Unknown:
    made = template(layout)
    assert not isinstance(made, Composite)
    return made


def is_released(layout: Layout) -> bool:
    """Whether the content is in the archive only."""
    return any(part.pattern & RELEASED for part in _plain_parts(layout))


def pools(layout: Layout) -> set[bytes]:
    """The pools that a layout names."""
    return {part.pool for part in _plain_parts(layout) if part.pool}


def for_new_file(layout: Layout, pool_map: Mapping[bytes, bytes]) -> Layout:
    """The layout to give to a new file: not released, with pools renamed; an empty name means no pool.

    :raises LustreError: when the new name of a pool is too long.
    """
    if isinstance(layout, Composite):
        components = tuple(
            dataclasses.replace(component, layout=_for_new(component.layout, pool_map))
            for component in layout.components
        )
        return dataclasses.replace(layout, components=components)
    return _for_new(layout, pool_map)


def _for_new(layout: Plain | Unknown, pool_map: Mapping[bytes, bytes]) -> Plain | Unknown:
    if isinstance(layout, Unknown):
        return layout
    pool = layout.pool if layout.pool is None else pool_map.get(layout.pool, layout.pool)
    if pool is not None and len(pool) >= _POOL_BYTES:
        raise LustreError(f"the name of the pool '{pool.decode(errors='replace')}' is too long")
    return dataclasses.replace(layout, pattern=layout.pattern & ~RELEASED, pool=pool)


def _plain_parts(layout: Layout) -> list[Plain]:
    parts = [component.layout for component in layout.components] if isinstance(layout, Composite) else [layout]
    return [part for part in parts if isinstance(part, Plain)]
