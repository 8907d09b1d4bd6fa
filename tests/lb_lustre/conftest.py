"""A simulated Lustre for tests."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lb_lustre.mounts import mounts
from lb_lustre.simulator.client import ask, served
from lb_lustre.simulator.standins import client_environment
from lbcore.testing import MakeJob
from lbcore.testing.job import Job

_MDTS = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a simulated Lustre: it takes longer than the other tests."""
    for item in items:
        if {"lustre", "shared_lustre"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.simulated)


class Simulated:
    """A mounted, simulated Lustre."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "mount" / "fs" / "simfs"
        self.devices = folder / "mount" / "dev"
        self._control = str(folder / "control")
        self._environment = client_environment(str(folder))

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Let this process find the stand-ins of liblustreapi and ``lfs``."""
        for name, value in self._environment.items():
            patch.setenv(name, value)
        self.lctl = [sys.executable, "-m", "lb_lustre.simulator.lctl", str(self.folder), "lctl"]
        """The words of the command that stands in for ``lctl``."""

    def ask(self, request: str, **arguments: Any) -> Any:
        """What an administrator does, or what happens to a server."""
        return ask(self._control, request, **arguments)

    def register(self, name: str = "lb-job") -> tuple[str, ...]:
        """A user on each metadata server, as the detector's options want them."""
        return tuple(f"MDT{mdt:04x}={self.ask('register', mdt=mdt, name=name)}" for mdt in range(_MDTS))

    def later(self) -> None:
        """Until a change gets another time: Lustre keeps whole seconds."""
        now = time.time()
        time.sleep(1.01 - now % 1)  # nothing can be watched: it is the clock that has to go on

    def snapshotter(self) -> dict[str, Any]:
        """Options of the snapshotter ``lustre``: ``lctl`` is the simulator's, and a mount is a bind mount."""
        return {
            "filesystem": "simfs",
            "mgs": [sys.executable, "-m", "lb_lustre.simulator.lctl", str(self.folder)],
            "client": [sys.executable, "-m", "lb_lustre.simulator.lctl", str(self.folder)],
            "device": f"{self.folder}/mount/fs/{{}}",
            "mount": ["mount", "--bind"],
            "folder": str(self.folder / "snapshots"),
        }

    def snapshots(self) -> list[str]:
        """Their names."""
        return [one["name"] for one in self.ask("snapshot_list")]

    def mounted(self) -> list[str]:
        """What is mounted of them, on servers and here."""
        here = [os.fsdecode(one.at) for one in mounts() if one.at.startswith(os.fsencode(self.folder / "snapshots"))]
        return here + [one["name"] for one in self.ask("snapshot_list") if one["mounted"]]

    def cleared(self) -> list[int]:
        """Up to which index our user has cleared, on each metadata server."""
        return [next(iter(self.ask("users", mdt=mdt)["users"].values()))["cleared"] for mdt in range(_MDTS)]

    def last(self) -> list[int]:
        """The index of the last record on each metadata server."""
        return [self.ask("users", mdt=mdt)["current_index"] for mdt in range(_MDTS)]


@pytest.fixture
def lustre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulated]:
    with simulated(tmp_path / "lustre") as there:
        there.use(monkeypatch)
        yield there


@contextlib.contextmanager
def simulated(folder: Path) -> Iterator[Simulated]:
    """Serve a simulated Lustre, where that is possible."""
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs root and /dev/fuse: a simulated Lustre is mounted")
    if shutil.which("cc") is None:
        pytest.skip("needs cc: the stand-in of liblustreapi is compiled")
    pytest.importorskip("mfusepy", reason="needs mfusepy: a simulated Lustre is mounted", exc_type=ImportError)
    with served(str(folder)):
        yield Simulated(folder)


@pytest.fixture
def make_job(lustre: Simulated, lb_job: MakeJob) -> Callable[..., Job]:
    """A job whose source is on the simulated Lustre, with the detector ``changelog``; ``ask``: it asks the servers."""

    def make(below: str = "", *, users: tuple[str, ...] | None = None, ask: bool = False, **settings: Any) -> Job:
        registered = () if ask else lustre.register() if users is None else users
        options = {"filesystem": "simfs", "devices": str(lustre.devices), "users": list(registered)}
        options["servers"] = [shlex.join(lustre.lctl)] if ask else []
        job = lb_job(**{"detector": "changelog", "racy_seconds": 0, "max_delete": "100%", **settings})
        job.source = os.path.join(os.fsencode(lustre.root), os.fsencode(below)) if below else os.fsencode(lustre.root)
        job.configure(**({"changelog": options} if settings.get("detector", "changelog") == "changelog" else {}))
        return job

    return make
