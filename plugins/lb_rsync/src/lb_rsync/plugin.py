"""Hooks."""

from __future__ import annotations

from collections.abc import Iterator

from lbcore import hookimpl
from lbcore.plugins.types import TransferPlugin


@hookimpl
def lb_register_transfers() -> Iterator[TransferPlugin]:
    """The transfer ``rsync``."""
    from lb_rsync.options import RsyncOptions  # noqa: PLC0415  (plugins are imported by every command)
    from lb_rsync.transfer import RsyncTransfer  # noqa: PLC0415

    yield TransferPlugin(
        name="rsync",
        summary="file content through one rsync process per worker and batch",
        config=RsyncOptions,
        create=RsyncTransfer,
    )
