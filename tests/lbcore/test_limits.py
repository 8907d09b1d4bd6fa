"""Limits and durations in the configuration."""

from __future__ import annotations

import pytest

from lbcore.config.limits import MaxDelete, parse_duration
from lbcore.errors import UsageError


@pytest.mark.parametrize(
    ("limit", "removals", "objects", "allowed"),
    [
        ("25% and 1000", 1000, 1000, True),
        ("25% and 1000", 1001, 4004, True),
        ("25% and 1000", 1002, 4004, False),
        ("25% and 1000", 5000, 20000, True),
        ("25% and 1000", 5001, 20000, False),
        ("1000", 1000, 1, True),
        (1000, 1001, 10**9, False),
        (0, 0, 0, True),
        (0, 1, 100, False),
        ("25%", 25, 100, True),
        ("25%", 26, 100, False),
        ("29 %", 29, 100, True),
        ("0.1%", 1, 1000, True),
        ("0.1%", 2, 1000, False),
        ("100%", 1000, 1000, True),
        ("0%", 1, 1000, False),
    ],
)
def test_the_brake_stops_what_exceeds_every_limit_that_is_set(
    limit: int | str, removals: int, objects: int, allowed: bool
) -> None:
    assert MaxDelete.parse(limit).allows(removals, objects) is allowed


def test_a_brake_without_limits_allows_everything() -> None:
    assert MaxDelete(share=None, count=None).allows(10**9, 1)


@pytest.mark.parametrize("limit", ["", "%", "25%1000", "25% or 1000", "1e3", "-5", "101%", "and 5", "5 and 5%"])
def test_a_limit_that_is_not_clear_is_refused(limit: str) -> None:
    with pytest.raises(UsageError):
        MaxDelete.parse(limit)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        ("90s", 90),
        ("2m", 120),
        ("12h", 43200),
        ("1d 12h", 129600),
        ("1w1d", 691200),
        ("0.5h", 1800),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_has_units(duration: float | str, seconds: float) -> None:
    assert parse_duration(duration) == seconds


@pytest.mark.parametrize("duration", ["", "12", "h", "12 hours", "-1h", "1h x", -1])
def test_a_duration_that_is_not_clear_is_refused(duration: float | str) -> None:
    with pytest.raises(UsageError):
        parse_duration(duration)
