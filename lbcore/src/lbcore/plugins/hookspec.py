"""The hooks of lb. ``docs/hooks.md`` has a heading for each, with its exact arguments."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lbcore import NAME
from lbcore.events import RunFinished, RunStarted, StageFinished
from lbcore.plugins.types import (
    CommandPlugin,
    DetectorPlugin,
    ExecutorPlugin,
    ExtrasPlugin,
    SnapshotterPlugin,
    TransferPlugin,
    VerifierPlugin,
)

hookspec = pluggy.HookspecMarker(NAME)


class LbSpecs:
    """Registration hooks return things that the configuration chooses by name; event hooks only tell."""

    @hookspec
    def lb_register_snapshotters(self) -> Iterable[SnapshotterPlugin]:  # type: ignore[empty-body]
        """Snapshotters: what gives a run the state it reads. Called once, when plugins are loaded."""

    @hookspec
    def lb_register_detectors(self) -> Iterable[DetectorPlugin]:  # type: ignore[empty-body]
        """Detectors: what says where something changed. Called once, when plugins are loaded."""

    @hookspec
    def lb_register_transfers(self) -> Iterable[TransferPlugin]:  # type: ignore[empty-body]
        """Transfers: what brings the content of files. Called once, when plugins are loaded."""

    @hookspec
    def lb_register_verifiers(self) -> Iterable[VerifierPlugin]:  # type: ignore[empty-body]
        """Verifiers: what compares the mirror with the catalog. Called once, when plugins are loaded."""

    @hookspec
    def lb_register_executors(self) -> Iterable[ExecutorPlugin]:  # type: ignore[empty-body]
        """Executors: where shards of work run. Called once, when plugins are loaded."""

    @hookspec
    def lb_register_extras(self) -> Iterable[ExtrasPlugin]:  # type: ignore[empty-body]
        """Keepers of what a filesystem has beyond POSIX. Called once, when plugins are loaded."""

    @hookspec
    def lb_register_commands(self) -> Iterable[CommandPlugin]:  # type: ignore[empty-body]
        """Commands that are added to ``lb``. Called once, when plugins are loaded."""

    @hookspec
    def lb_run_started(self, event: RunStarted) -> None:
        """A run of a job began or went on. Called by the core; an error is logged and changes nothing.

        :param event: which job and run, and whether it goes on after an interruption.
        """

    @hookspec
    def lb_stage_finished(self, event: StageFinished) -> None:
        """A stage of a run is done. Called by the core; an error is logged and changes nothing.

        :param event: the stage, what it did and how long it took.
        """

    @hookspec
    def lb_run_finished(self, event: RunFinished) -> None:
        """A run ended, well or not. Called by the core; an error is logged and changes nothing.

        :param event: the state the run ended in, its counts and its exit status.
        """
