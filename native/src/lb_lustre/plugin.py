"""What this distribution gives to lb."""

from __future__ import annotations

from collections.abc import Iterable

from lb_lustre.changelog import Changelog, ChangelogOptions
from lb_lustre.keeper import LustreExtras, LustreExtrasOptions
from lbcore import hookimpl
from lbcore.plugins.types import DetectorPlugin, ExtrasPlugin


@hookimpl
def lb_register_detectors() -> Iterable[DetectorPlugin]:
    """``changelog``."""
    yield DetectorPlugin(
        name="changelog",
        summary="what changed, from the changelogs of all metadata servers of a Lustre",
        config=ChangelogOptions,
        create=Changelog,
    )


@hookimpl
def lb_register_extras() -> Iterable[ExtrasPlugin]:
    """``lustre-extras``."""
    yield ExtrasPlugin(
        name="lustre-extras",
        summary="keeps layouts, project ids and the states of HSM; puts them back on a Lustre",
        config=LustreExtrasOptions,
        create=lambda options: LustreExtras(options=options),
    )
