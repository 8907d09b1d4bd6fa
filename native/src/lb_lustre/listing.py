"""What ``lctl snapshot_list`` prints (recorded in Lustre 2.17: ``i_snapshot.commands``)."""

from __future__ import annotations

from dataclasses import dataclass

from lb_lustre.errors import LustreError

MOUNTED = "mounted"
NOT_MOUNTED = "not mount"


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One snapshot."""

    name: str
    filesystem: str
    """What its filesystem is called, as ``20a3646e``; empty for half a snapshot that has none."""
    status: str
    """``mounted``, ``not mount`` or ``unknown``: whether the servers have it mounted."""


def parse(text: str) -> list[Listed]:
    """Every snapshot of a list; the lines of one come in any order after its name, a comment may be missing.

    :raises LustreError: for a list that is none, or has no name for a snapshot.
    """
    found: list[dict[str, str]] = []
    for line in text.strip().splitlines():
        key, _, value = line.partition(":")
        if key == "filesystem_name":
            found.append({})
        elif not found:
            raise LustreError(f"the list of snapshots begins with what cannot be understood: {line!r}")
        else:
            found[-1].setdefault(key, value.strip())  # a comment may have lines of its own
    if any("snapshot_name" not in one for one in found):
        raise LustreError("the list of snapshots has one without a name")
    return [
        Listed(
            name=one["snapshot_name"],
            filesystem=one.get("snapshot_fsname", ""),
            status=one.get("status", "unknown"),
        )
        for one in found
    ]
