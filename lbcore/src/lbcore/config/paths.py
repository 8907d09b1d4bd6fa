"""The paths of jobs: how they are written, and which must not lie in one another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from lbcore.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """Where a job reads and writes."""

    source: bytes
    target: bytes
    state_dir: bytes | None


def parse_path(text: str) -> bytes:
    """An absolute path without needless slashes and dots; symbolic links stay as they are.

    It is UTF-8, as the file it stands in, whatever the locale: cron's is not the administrator's.

    :raises UsageError: when it is relative, or ambiguous.
    """
    if "\0" in text:
        raise UsageError("a path cannot contain a NUL character")
    if not text.startswith("/"):
        hint = " ('~' is not expanded)" if text.startswith("~") else ""
        raise UsageError(f"expected an absolute path, found {text!r}{hint}")
    if ".." in text.split("/"):
        raise UsageError(f"{text!r} contains '..', which means something else behind a symbolic link")
    return b"/" + os.path.normpath(text.encode()).lstrip(b"/")


def is_inside(inner: bytes, outer: bytes) -> bool:
    """Whether ``inner`` is ``outer`` or below it, also by way of symbolic links and bind mounts.

    Neither has to exist.
    """
    real_inner, real_outer = os.path.realpath(inner), os.path.realpath(outer)
    if real_outer in _upwards(real_inner):
        return True
    identity = _identity(real_outer)
    return identity is not None and any(_identity(path) == identity for path in _upwards(real_inner))


def _upwards(path: bytes) -> Iterator[bytes]:
    yield path
    while path != (parent := os.path.dirname(path)):
        yield parent
        path = parent


def _identity(path: bytes) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_own(ends: Ends) -> None:
    """Refuse a job whose ends lie in one another.

    :raises UsageError: its message begins with the key that is wrong.
    """
    source, target, state_dir = _show(ends.source), _show(ends.target), ends.state_dir
    if is_inside(ends.target, ends.source):
        raise UsageError(
            f"target: {target} is inside the source {source}: the backup would back up itself; "
            "choose a target elsewhere"
        )
    if is_inside(ends.source, ends.target):
        raise UsageError(f"source: {source} is inside the target {target}; choose a target elsewhere")
    if state_dir is not None and is_inside(state_dir, ends.source):
        raise UsageError(f"state_dir: {_show(state_dir)} is inside the source {source}; choose another folder")
    if state_dir is not None and is_inside(state_dir, ends.target + b"/tree"):
        raise UsageError(f"state_dir: {_show(state_dir)} is inside the mirror {target}/tree; choose another folder")


def check_apart(ends: Ends, other: Ends, other_job: str) -> None:
    """Refuse a job that would write where the other job does.

    :raises UsageError: its message begins with the key that is wrong.
    """
    if is_inside(ends.target, other.target) and is_inside(other.target, ends.target):
        raise UsageError(
            f"target: {_show(ends.target)} is also the target of job '{other_job}'; each job needs its own"
        )
    for key, path in (("target", ends.target), ("state_dir", ends.state_dir)):
        if path is None:
            continue
        for part in (other.target + b"/tree", other.target + b"/.lb"):
            if is_inside(path, part):
                raise UsageError(
                    f"{key}: {_show(path)} is inside {_show(part)}, which belongs to job '{other_job}'; "
                    "choose another folder"
                )
    state_dir, other_state_dir = ends.state_dir, other.state_dir
    if state_dir is not None and other_state_dir is not None and is_inside(state_dir, other_state_dir):
        raise UsageError(
            f"state_dir: {_show(state_dir)} is in the state_dir of job '{other_job}'; each job needs its own"
        )


def _show(path: bytes) -> str:
    return os.fsdecode(path)
