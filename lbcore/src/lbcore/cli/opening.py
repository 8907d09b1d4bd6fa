"""What the commands that look into a backup share: its catalog, its points in time, and how things are written."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from lbcore.errors import CatalogError

if TYPE_CHECKING:
    from lbcore.catalog.catalog import Catalog
    from lbcore.catalog.objects import Row
    from lbcore.config.job import JobConfig

job_option = click.option("--job", "job_name", metavar="JOB", help="The job; needed when there are several.")
at_option = click.option(
    "--at",
    metavar="RUN|TIME",
    default="latest",
    help="The point in time: a run's number, a local time such as '2026-01-31 12:00', or 'latest' (the default).",
)

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


@contextlib.contextmanager
def open_catalog(job: JobConfig) -> Iterator[Catalog]:
    """The catalog of a job, for reading; a run may go on meanwhile.

    :raises CatalogError: when the job has not run yet, or its catalog cannot be read.
    :raises TargetError: when the target is not mounted.
    """
    from lbcore.catalog.catalog import Catalog  # noqa: PLC0415 - help must not wait for the core
    from lbcore.failure import explained  # noqa: PLC0415
    from lbcore.mounted import check_mounted  # noqa: PLC0415
    from lbcore.run import catalog_path  # noqa: PLC0415
    from lbcore.target import TREE  # noqa: PLC0415

    check_mounted(job)
    path = catalog_path(job)
    try:
        os.stat(path)
    except FileNotFoundError:
        target = os.fsdecode(job.target)
        if os.path.lexists(os.path.join(job.target, TREE)):
            raise CatalogError(
                f"{job.name}: {target} holds a backup, but its catalog {os.fsdecode(path)} is gone; bring that back"
            ) from None
        where = f"'lb run {job.name}' makes it" + (
            "" if os.path.isdir(job.target) else "; or is the target not mounted?"
        )
        raise CatalogError(f"{job.name}: there is no backup yet at {target}; {where}") from None
    except OSError as error:
        raise CatalogError(
            f"{job.name}: the backup at {os.fsdecode(job.target)} cannot be read: {error.strerror}; it belongs to the "
            "user who runs 'lb run'"
        ) from error
    with explained(path), contextlib.closing(Catalog.open(path, read_only=True)) as catalog:
        yield catalog


def iso(time_ns: int | None) -> str | None:
    """A time as ISO 8601, with the local offset."""
    if time_ns is None:
        return None
    local = datetime.datetime.fromtimestamp(time_ns // 10**9, datetime.timezone.utc).astimezone()
    return local.replace(microsecond=time_ns % 10**9 // 1000).isoformat()


def size_text(count: int) -> str:
    """Bytes as people say them."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} PB"


def row_object(row: Row) -> dict[str, Any]:
    """What is known of an object, for ``--json``."""
    from lbcore.cli.text import printable  # noqa: PLC0415 - not for help

    return {
        "object": row.obj,
        "kind": KINDS.get(stat.S_IFMT(row.mode), "unknown"),
        "mode": f"{stat.S_IMODE(row.mode):04o}",
        "uid": row.uid,
        "gid": row.gid,
        "size": row.size if stat.S_ISREG(row.mode) else None,
        "mtime": iso(row.mtime_ns),
        "mtime_ns": row.mtime_ns,
        "link_target": None if row.link_target is None else printable(row.link_target),
        "digest": None if row.digest is None else row.digest.hex(),
    }


def print_json_list(items: Iterable[Mapping[str, Any]]) -> None:
    """A JSON list, an item a line, printed as it comes: it may be longer than the memory."""
    separator = "[\n"
    for item in items:
        sys.stdout.write(separator + json.dumps(item))
        separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")
