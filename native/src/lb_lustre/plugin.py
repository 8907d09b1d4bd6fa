"""What this distribution gives to lb."""

from __future__ import annotations

from collections.abc import Iterable

from lb_lustre.changelog import Changelog, ChangelogOptions
from lbcore import hookimpl
from lbcore.plugins.types import DetectorPlugin


@hookimpl
def lb_register_detectors() -> Iterable[DetectorPlugin]:
    """``changelog``."""
    yield DetectorPlugin(
        name="changelog",
        summary="what changed, from the changelogs of all metadata servers of a Lustre",
        config=ChangelogOptions,
        create=Changelog,
    )
