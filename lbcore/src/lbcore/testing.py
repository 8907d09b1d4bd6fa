"""A pytest plugin for authors of lb plugins: an empty plugin manager, a job in a temporary folder, a tree comparer."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_lb_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No ``LB_*`` variable of the developer's shell reaches a test."""
    for name in [name for name in os.environ if name.startswith("LB_")]:
        monkeypatch.delenv(name)
    yield
