"""Every error that ends a command, with its exit status; ``docs/exit-codes.md`` is the users' table."""

from __future__ import annotations

from collections.abc import Iterable

EXIT_DONE = 0
EXIT_SOURCE_ERRORS = 3
EXIT_DAMAGE = 4
EXIT_GAP = 5

PRECEDENCE = (2, 11, 75, 1, 6, 4, 3, 5, 0)
"""The first of these that any job of a command ended with is the command's exit status (design: "Exit codes")."""


class LbError(Exception):
    """The backup cannot go on; the message says what, where and what to do."""

    exit_code = 1


class UsageError(LbError):
    """The command or the configuration is wrong; nothing was touched."""

    exit_code = 2


class BrakeError(LbError):
    """The run would remove more than ``max_delete`` allows; nothing was applied."""

    exit_code = 6


class LockedError(LbError):
    """Another run holds the lock of this job."""

    exit_code = 11


class PausedError(LbError):
    """The run was asked to stop and can be continued by ``lb run``."""

    exit_code = 75


class SourceError(LbError):
    """The source is not there, or not the one this job backs up; the run stops before it concludes anything."""


class TargetError(LbError):
    """The target cannot be written, or does not hold what the catalog says; the run stops where it is."""


class CatalogError(LbError):
    """The catalog cannot be opened or does not belong to this tree."""


def combined_exit_code(codes: Iterable[int]) -> int:
    """The exit status of a command over several jobs; a code that is not in the table counts as failure (1)."""
    known = {code if code in PRECEDENCE else 1 for code in codes}
    return next((code for code in PRECEDENCE if code in known), EXIT_DONE)
