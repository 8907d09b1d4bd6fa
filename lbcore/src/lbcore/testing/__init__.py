"""A pytest plugin for authors of lb plugins: an empty plugin manager, a job in a temporary folder, a tree comparer.

pytest loads this module in every session, so nothing of the core is imported before a fixture needs it.
``docs/plugin-testing.md`` has an example.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from lbcore.testing.trees import Node, Tree, compare_trees, read_tree

if TYPE_CHECKING:
    from lbcore.plugins.manager import Plugins
    from lbcore.testing.job import Job

__all__ = ["MakeJob", "Node", "Tree", "compare_trees", "lb_job", "lb_plugins", "read_tree"]


class MakeJob(Protocol):
    """The type of the fixture ``lb_job``."""

    def __call__(self, *plugins: object, name: str = "job", **settings: Any) -> Job:
        """A job with an empty source and a target that is not there yet.

        :param plugins: modules or objects with hooks; what is installed is there too.
        :param settings: keys of ``[job.NAME]``, as the configuration has them.
        :raises UsageError: when the configuration would be refused.
        """


@pytest.fixture(autouse=True)
def _no_lb_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No ``LB_*`` variable of the developer's shell reaches a test."""
    for name in [name for name in os.environ if name.startswith("LB_")]:
        monkeypatch.delenv(name)
    yield


@pytest.fixture
def lb_plugins() -> Plugins:
    """A plugin manager that knows the hooks and holds no plugin, not even the built-in ones."""
    from lbcore.plugins.manager import Plugins  # noqa: PLC0415 - see the module's docstring

    return Plugins(load=False)


@pytest.fixture
def lb_job(tmp_path: Path) -> MakeJob:
    """Makes jobs, each in a folder of its own below the test's."""
    from lbcore.testing.job import Job  # noqa: PLC0415 - see the module's docstring

    def make(*plugins: object, name: str = "job", **settings: Any) -> Job:
        return Job(os.fsencode(tmp_path / name), *plugins, name=name, **settings)

    return make
