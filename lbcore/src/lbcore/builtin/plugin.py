"""The hooks of the built-in things."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from lbcore import hookimpl
from lbcore.builtin.attributes import Attributes
from lbcore.builtin.checksum import Checksum
from lbcore.builtin.copy import Copy
from lbcore.builtin.none import LiveTree
from lbcore.builtin.runlog import RunLog
from lbcore.builtin.scan import Scan
from lbcore.events import RunFinished, RunStarted, StageFinished
from lbcore.plugins.types import (
    DetectorPlugin,
    ExecutorPlugin,
    SnapshotterPlugin,
    TransferPlugin,
    VerifierPlugin,
)

_run_log = RunLog()


@hookimpl
def lb_register_snapshotters() -> Iterable[SnapshotterPlugin]:
    """``none``."""
    yield SnapshotterPlugin(
        name="none", summary="no snapshot: the live tree is read", create=lambda options: LiveTree()
    )


@hookimpl
def lb_register_detectors() -> Iterable[DetectorPlugin]:
    """``scan``."""
    yield DetectorPlugin(
        name="scan",
        summary="lists every directory, looks closer where one changed",
        create=lambda options: Scan(),
    )


@hookimpl
def lb_register_transfers() -> Iterable[TransferPlugin]:
    """``copy``."""
    yield TransferPlugin(
        name="copy",
        summary="copies within this host: reflinks where it can, holes kept",
        create=lambda options: Copy(),
    )


@hookimpl
def lb_register_verifiers() -> Iterable[VerifierPlugin]:
    """``attributes`` and ``checksum``."""
    yield VerifierPlugin(
        name="attributes",
        summary="compares kind, owner, mode, size, times and xattrs",
        create=lambda options: Attributes(),
    )
    yield VerifierPlugin(
        name="checksum", summary="reads the content and compares digests", create=lambda options: Checksum()
    )


@hookimpl
def lb_register_executors() -> Iterable[ExecutorPlugin]:
    """``local``."""
    yield ExecutorPlugin(
        name="local", summary="threads of this process", create=lambda options, workers: ThreadPoolExecutor(workers)
    )


@hookimpl
def lb_run_started(event: RunStarted) -> None:
    """The log file of the run."""
    _run_log.started(event)


@hookimpl
def lb_stage_finished(event: StageFinished) -> None:
    """A line in the log file of the run."""
    _run_log.stage(event)


@hookimpl
def lb_run_finished(event: RunFinished) -> None:
    """The last line of the log file of the run."""
    _run_log.finished(event)
