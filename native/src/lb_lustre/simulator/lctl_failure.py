"""How a command of the simulated ``lctl`` fails."""

from __future__ import annotations


class FailureError(Exception):
    """The command ends: what it prints on standard error (and output), and its status."""

    def __init__(self, status: int, error: str = "", output: str = "") -> None:
        super().__init__(error)
        self.status, self.error, self.output = status, error, output
