"""Run as a program: ``lb`` that does something to itself at its n-th step. Needs neither strace nor root.

``LB_TEST_FAULT=kill:37`` kills it by SIGKILL right before step 37, ``term:37`` sends it SIGTERM, ``stop:37`` stops it,
``count`` prints the names of all steps. Steps are the catalog's commits (before and after), every operation on the
target, every file that is copied or dressed, the borders of stages, and what is asked of a Lustre.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from lbcore import epoch, run, runfile
from lbcore.apply import content, finish, shards
from lbcore.catalog.database import Database
from lbcore.cli.main import main
from lbcore.snapshots import Snapshots
from lbcore.target import Target

_action, _, _at = os.environ["LB_TEST_FAULT"].partition(":")
_steps = itertools.count(1)
_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}


def step(name: str) -> None:
    """One more."""
    number = next(_steps)
    if _action == "count":
        print(name, file=sys.stderr)
    elif number == int(_at):
        os.kill(os.getpid(), _SIGNALS[_action])


def before(owner: Any, name: str) -> None:
    """Each call of ``owner.name`` is a step."""
    original: Callable[..., Any] = getattr(owner, name)

    def stepping(*arguments: Any, **more: Any) -> Any:
        step(name)
        return original(*arguments, **more)

    setattr(owner, name, stepping)


def around(owner: type, name: str) -> None:
    """The end of each context is a step, and so is what comes after it."""
    original: Callable[..., contextlib.AbstractContextManager[None]] = getattr(owner, name)

    @contextlib.contextmanager
    def stepping(*arguments: Any) -> Iterator[None]:
        with original(*arguments):
            yield
            step(f"end of {name}")
        step(f"after {name}")

    setattr(owner, name, stepping)


around(Database, "transaction")
around(run.JobRun, "_stage")
for operation in ("lift", "set_down", "replace", "link", "unlink", "remove_directory", "set_aside", "sync"):
    before(Target, operation)
for operation in ("keep", "take", "clear"):
    before(Snapshots, operation)
if importlib.util.find_spec("lb_lustre"):
    from lb_lustre.changelog import Changelog
    from lb_lustre.snapshots import LustreSnapshots

    for operation in ("collect", "acknowledge", "flush", "observe"):
        before(Changelog, operation)
    for operation in ("create", "list", "destroy", "_mount_client", "_release"):
        before(LustreSnapshots, operation)
for module, function in (
    (runfile, "write"),
    (epoch, "write"),
    (shards, "_dress"),
    (shards, "_place"),
    (finish, "set_attributes"),
    (content, "clear_arrivals"),
):
    before(module, function)

main()
