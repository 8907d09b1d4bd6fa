"""The hooks of the built-in things. What they are made of is imported when a job needs it: help lists plugins, too."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Any

from lbcore import hookimpl
from lbcore.builtin.runlog import RunLog
from lbcore.events import RunFinished, RunStarted, StageFinished
from lbcore.plugins.types import (
    Detector,
    DetectorPlugin,
    ExecutorPlugin,
    Snapshotter,
    SnapshotterPlugin,
    Transfer,
    TransferPlugin,
    Verifier,
    VerifierPlugin,
)

_run_log = RunLog()


def _live_tree(_: Any) -> Snapshotter:
    from lbcore.builtin.none import LiveTree  # noqa: PLC0415

    return LiveTree()


def _scan(_: Any) -> Detector:
    from lbcore.builtin.scan import Scan  # noqa: PLC0415

    return Scan()


def _copy(_: Any) -> Transfer:
    from lbcore.builtin.copy import Copy  # noqa: PLC0415

    return Copy()


def _attributes(_: Any) -> Verifier:
    from lbcore.builtin.attributes import Attributes  # noqa: PLC0415

    return Attributes()


def _checksum(_: Any) -> Verifier:
    from lbcore.builtin.checksum import Checksum  # noqa: PLC0415

    return Checksum()


def _local(_: Any, workers: int) -> Executor:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    return ThreadPoolExecutor(workers)


@hookimpl
def lb_register_snapshotters() -> Iterable[SnapshotterPlugin]:
    """``none``."""
    yield SnapshotterPlugin(name="none", summary="no snapshot: the live tree is read", create=_live_tree)


@hookimpl
def lb_register_detectors() -> Iterable[DetectorPlugin]:
    """``scan``."""
    yield DetectorPlugin(
        name="scan",
        summary="lists every directory, looks closer where one changed",
        create=_scan,
    )


@hookimpl
def lb_register_transfers() -> Iterable[TransferPlugin]:
    """``copy``."""
    yield TransferPlugin(
        name="copy",
        summary="copies within this host: reflinks where it can, holes kept",
        create=_copy,
    )


@hookimpl
def lb_register_verifiers() -> Iterable[VerifierPlugin]:
    """``attributes`` and ``checksum``."""
    yield VerifierPlugin(
        name="attributes",
        summary="compares kind, owner, mode, size, times and xattrs",
        create=_attributes,
    )
    yield VerifierPlugin(name="checksum", summary="reads the content and compares digests", create=_checksum)


@hookimpl
def lb_register_executors() -> Iterable[ExecutorPlugin]:
    """``local``."""
    yield ExecutorPlugin(name="local", summary="threads of this process", create=_local)


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
