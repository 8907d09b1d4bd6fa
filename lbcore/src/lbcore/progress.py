"""How far a stage is, for whoever watches."""

from __future__ import annotations


class Progress:
    """Does nothing: what a run reports to when nobody watches. The command line has one that draws a bar."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A stage begins; ``total`` is how many steps it has, when that is known."""

    def advance(self, steps: int, size_bytes: int = 0) -> None:
        """So many steps more are done, with so many bytes of content."""
