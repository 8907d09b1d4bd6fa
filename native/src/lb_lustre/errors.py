"""What can be wrong with a Lustre."""

from __future__ import annotations

from lbcore.errors import SourceError


class LustreError(SourceError):
    """The filesystem, or a server of it, does not answer as it should."""


class LustreUnavailableError(LustreError):
    """What is needed of a Lustre client is not on this node, or too old."""


class MalformedError(LustreError):
    """A changelog that cannot be understood; every record before that place was taken."""

    def __init__(self, *, after_index: int, offset_bytes: int, reason: str) -> None:
        super().__init__(f"the record after index {after_index} cannot be understood: {reason}")
        self.after_index = after_index
        """Index of the last record that was understood; 0 when it was none."""
        self.offset_bytes = offset_bytes
        """Where the malformed record begins in what was read."""
        self.reason = reason
