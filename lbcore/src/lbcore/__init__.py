"""lb: incremental backups of filesystems too large to scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pluggy

    hookimpl: pluggy.HookimplMarker

NAME = "lbcore"
"""The pluggy project, the markers' project and the entry-point group, in one word."""

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Make ``hookimpl``, the marker of a hook's implementation, when a plugin first asks: it costs 20 ms."""
    if name != "hookimpl":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pluggy  # noqa: PLC0415

    return globals().setdefault(name, pluggy.HookimplMarker(NAME))
