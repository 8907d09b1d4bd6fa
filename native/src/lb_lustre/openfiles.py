"""Files that clients have open: what is said of them, and since when each is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from lb_lustre import fid
from lbcore.model import ObjectId

_NAMED = 10
_HOUR_NS = 3600 * 10**9


def since(before: Mapping[str, int], opened: Collection[ObjectId], now_ns: int) -> dict[str, int]:
    """When each open file (by its FID, as hexadecimal digits) was seen to be open first."""
    return {one.hex(): before.get(one.hex(), now_ns) for one in opened}


def notes(opened: Collection[ObjectId], first_seen: Mapping[str, int], max_hours: float, now_ns: int) -> Iterator[str]:
    """How many files are open, and which of them for longer than ``max_hours``, the oldest first.

    :param first_seen: as ``since`` says; empty when nobody wants to know for how long.
    """
    if opened:
        yield f"{len(opened)} files are open"
    limit_ns = now_ns - int(max_hours * _HOUR_NS)
    long = sorted((at_ns, one) for one, at_ns in first_seen.items() if at_ns < limit_ns)
    if long:
        named = ", ".join(
            f"{fid.text(bytes.fromhex(one))} ({(now_ns - at_ns) // _HOUR_NS} h)" for at_ns, one in long[:_NAMED]
        )
        more = f" and {len(long) - _NAMED} more" if len(long) > _NAMED else ""
        yield f"open for more than {max_hours:g} hours: {named}{more}"
