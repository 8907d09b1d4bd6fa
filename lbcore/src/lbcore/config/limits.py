"""Values with a syntax of their own: the brake's limit and durations."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lbcore.errors import UsageError

_LIMIT = re.compile(r"(?P<share>\d+(?:\.\d+)?)\s*%(?:\s+and\s+(?P<both>\d+))?|(?P<count>\d+)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])\s*")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxDelete:
    """How much a run may remove; it is stopped when every limit that is set is exceeded."""

    share: float | None = 0.25
    """Part of the objects in the backup, 0 to 1."""
    count: int | None = 1000
    """Objects."""

    def allows(self, removals: int, objects: int) -> bool:
        """Whether ``removals`` of the ``objects`` in the backup may go."""
        # 29 % of 100 is 28.999… in binary: the slack is far below one object and above the rounding.
        over_share = self.share is None or removals > self.share * objects * (1 + 1e-12)
        over_count = self.count is None or removals > self.count
        unlimited = self.share is None and self.count is None
        return unlimited or not (over_share and over_count)

    def __str__(self) -> str:
        share = [] if self.share is None else [f"{self.share * 100:.10g}%"]
        count = [] if self.count is None else [str(self.count)]
        return " and ".join(share + count)

    @classmethod
    def parse(cls, value: int | str) -> MaxDelete:
        """From ``1000``, ``"1000"``, ``"25%"`` or ``"25% and 1000"``.

        :raises UsageError: when it is none of these.
        """
        match = _LIMIT.fullmatch(str(value).strip())
        if match is None:
            raise UsageError(f"expected a number of objects, a share as '25%', or '25% and 1000', not {value!r}")
        if match["share"] and float(match["share"]) > 100:
            raise UsageError(f"a share is at most 100%, not {value!r}")
        count = match["both"] or match["count"]
        return cls(
            share=float(match["share"]) / 100 if match["share"] else None,
            count=int(count) if count else None,
        )


def parse_duration(value: float | str) -> float:
    """Seconds, from a number of them or from ``"90s"``, ``"12h"``, ``"1d 12h"`` (units s, m, h, d, w).

    :raises UsageError: when it is neither, or negative.
    """
    if isinstance(value, str):
        text = value.strip()
        if not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
            raise UsageError(f"expected a number of seconds or a duration as '12h', not {value!r}")
        return float(sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text)))
    return at_least_zero(value)


def at_least_zero(value: float) -> float:
    """The value itself.

    :raises UsageError: when it is negative or not a number.
    """
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"must not be negative, found {value}")
    return value
