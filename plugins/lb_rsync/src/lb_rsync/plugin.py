"""Hooks."""

from __future__ import annotations

from collections.abc import Iterator

from lb_rsync.options import RsyncOptions
from lbcore import hookimpl
from lbcore.plugins.types import Transfer, TransferPlugin


def _rsync(options: RsyncOptions) -> Transfer:
    from lb_rsync.transfer import RsyncTransfer  # noqa: PLC0415 - plugins are imported by every command, and by help

    return RsyncTransfer(options)


@hookimpl
def lb_register_transfers() -> Iterator[TransferPlugin]:
    """The transfer ``rsync``."""
    yield TransferPlugin(
        name="rsync",
        summary="file content through one rsync process per worker and batch",
        config=RsyncOptions,
        create=_rsync,
    )
