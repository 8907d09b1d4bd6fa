"""What this distribution gives to lb. What it is made of is imported when it is needed: help lists plugins, too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lb_lustre.options import ChangelogOptions, LustreExtrasOptions, LustreOptions
from lbcore import hookimpl
from lbcore.plugins.types import (
    CommandPlugin,
    Detector,
    DetectorPlugin,
    ExtrasKeeper,
    ExtrasPlugin,
    Snapshotter,
    SnapshotterPlugin,
)

if TYPE_CHECKING:
    import click


def _changelog(options: ChangelogOptions) -> Detector:
    from lb_lustre.changelog import Changelog  # noqa: PLC0415

    return Changelog(options)


def _snapshots(options: LustreOptions) -> Snapshotter:
    from lb_lustre.snapshots import LustreSnapshots  # noqa: PLC0415

    return LustreSnapshots(options)


def _extras(options: LustreExtrasOptions) -> ExtrasKeeper:
    from lb_lustre.keeper import LustreExtras  # noqa: PLC0415

    return LustreExtras(options=options)


def _lustre() -> click.Command:
    from lb_lustre.commands import lustre  # noqa: PLC0415

    return lustre


@hookimpl
def lb_register_snapshotters() -> Iterable[SnapshotterPlugin]:
    """``lustre``."""
    yield SnapshotterPlugin(
        name="lustre",
        summary="snapshots of a Lustre on ZFS, made by lctl on the MGS, mounted on this client",
        config=LustreOptions,
        create=_snapshots,
    )


@hookimpl
def lb_register_detectors() -> Iterable[DetectorPlugin]:
    """``changelog``."""
    yield DetectorPlugin(
        name="changelog",
        summary="what changed, from the changelogs of all metadata servers of a Lustre",
        config=ChangelogOptions,
        create=_changelog,
    )


@hookimpl
def lb_register_commands() -> Iterable[CommandPlugin]:
    """``lb lustre``."""
    yield CommandPlugin(
        name="lustre", summary="Register with the metadata servers; see what waits there.", create=_lustre
    )


@hookimpl
def lb_register_extras() -> Iterable[ExtrasPlugin]:
    """``lustre-extras``."""
    yield ExtrasPlugin(
        name="lustre-extras",
        summary="keeps layouts, project ids and the states of HSM; puts them back on a Lustre",
        config=LustreExtrasOptions,
        create=_extras,
    )
