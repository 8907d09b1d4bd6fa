"""``lb restore``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lbcore.cli.context import Lb
from lbcore.cli.opening import at_option, job_option, open_catalog, size_text
from lbcore.cli.text import printable
from lbcore.errors import EXIT_DAMAGE, EXIT_DONE, EXIT_SOURCE_ERRORS, UsageError, combined_exit_code

if TYPE_CHECKING:
    from lbcore.beneath import Root
    from lbcore.catalog.catalog import Catalog
    from lbcore.config.job import JobConfig
    from lbcore.restore.selection import Chosen

_CONFLICTS_SHOWN = 10
_FAILED = 1


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--to", required=True, metavar="DIR", help="The folder for what is restored; made when it is missing.")
@at_option
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace existing files, and set attributes of existing directories; what is not in the backup stays.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a restore that was cut short: existing files that are as in the backup, content included, stay.",
)
@job_option
@click.pass_obj
def restore(
    lb: Lb, /, *, paths: tuple[str, ...], to: str, at: str, overwrite: bool, resume: bool, job_name: str | None
) -> int:
    """Copy files and directories out of the backup, as they are or were.

    PATH a/b/c becomes DIR/c; "." is the whole tree, whose root becomes DIR. Nothing that exists is overwritten,
    unless told so, and directories that hold something keep their attributes. Content is verified while it is written.
    """
    from lbcore import points  # noqa: PLC0415 - help must not wait for the core
    from lbcore.restore.selection import choose  # noqa: PLC0415

    if not to:
        raise UsageError("--to is empty; give the folder for what is restored")
    job = lb.job(job_name)
    folder = os.path.abspath(os.fsencode(to))
    _check_outside(folder, job)
    with open_catalog(job) as catalog:
        run = points.find_point(catalog, at).run
        chosen = choose(catalog, run, [points.inside_path(os.fsencode(path), job.source) for path in paths])
        with _open_destination(folder) as destination:
            _check_conflicts(catalog, run, chosen, destination, overwrite=overwrite, resume=resume)
            return _restore(job, catalog, run, chosen, destination, overwrite=overwrite, resume=resume)


def _check_outside(folder: bytes, job: JobConfig) -> None:
    """Nobody but a run may write in the backup."""
    real, target = os.path.realpath(folder), os.path.realpath(job.target)
    if real == target or real.startswith(target + b"/"):
        raise UsageError(f"{os.fsdecode(folder)} lies in the backup itself; restore to a folder outside of it")


@contextlib.contextmanager
def _open_destination(folder: bytes) -> Iterator[Root]:
    from lbcore.beneath import Root  # noqa: PLC0415

    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{os.fsdecode(folder)} cannot be a folder: {error.strerror}") from error
    with Root(folder) as root:
        yield root


def _check_conflicts(
    catalog: Catalog, run: int, chosen: list[Chosen], destination: Root, *, overwrite: bool, resume: bool
) -> None:
    from lbcore.restore.selection import conflicts  # noqa: PLC0415

    lines, count = [], 0
    for conflict in conflicts(catalog, run, chosen, destination, overwrite=overwrite, resume=resume):
        count += 1
        if count <= _CONFLICTS_SHOWN:
            lines.append(f"{os.fsdecode(os.path.join(destination.path, conflict.path))} {conflict.what}")
    if count > _CONFLICTS_SHOWN:
        lines.append(f"and {count - _CONFLICTS_SHOWN} more")
    if count:
        hint = "give another folder" if overwrite else "give another folder, or --overwrite"
        raise UsageError("\n".join([*lines, f"nothing was restored; {hint}"]))


def _restore(
    job: JobConfig,
    catalog: Catalog,
    run: int,
    chosen: list[Chosen],
    destination: Root,
    *,
    overwrite: bool,
    resume: bool,
) -> int:
    from lbcore.cli.progress import make_progress  # noqa: PLC0415
    from lbcore.held import Held  # noqa: PLC0415
    from lbcore.keeping import find_keeping  # noqa: PLC0415
    from lbcore.restore.crew import open_crew  # noqa: PLC0415
    from lbcore.restore.restoring import Restoring  # noqa: PLC0415
    from lbcore.run import catalog_path  # noqa: PLC0415

    def report(path: bytes, reason: str) -> None:
        print(f"lb: {job.name}: {printable(path or b'.')}: {printable(os.fsencode(reason))}", file=sys.stderr)

    keeping = find_keeping(job.extras, destination.path)
    with (
        contextlib.closing(Held(job.target, catalog)) as held,
        open_crew(
            job.target, catalog_path(job), destination, keeping, job.workers, overwrite=overwrite, resume=resume
        ) as crew,
        make_progress(job.name, quiet=False) as progress,
    ):
        restoring = Restoring(
            catalog, run, held, destination, keeping, crew=crew, overwrite=overwrite, resume=resume, report=report,
            progress=progress,
        )  # fmt: skip
        done = restoring.restore(chosen)
    for name, count in sorted(restoring.refused.items()):
        print(f"lb: {job.name}: {name}: could not be set for {count} objects", file=sys.stderr)
    print(
        f"{job.name}: restored {done.objects} objects of run {run} to {printable(destination.path)} "
        f"({done.files} files, {size_text(done.size_bytes)})"
    )
    codes = [EXIT_DONE]
    if done.damaged:
        print(f"lb: {job.name}: {done.damaged} files are damaged in the backup", file=sys.stderr)
        codes.append(EXIT_DAMAGE)
    if done.without_content:
        print(f"lb: {job.name}: of {done.without_content} files the backup holds no content", file=sys.stderr)
        codes.append(EXIT_SOURCE_ERRORS)
    if done.stubs:
        print(f"lb: {job.name}: {done.stubs} files were made without content: it is not in the backup", file=sys.stderr)
        codes.append(EXIT_SOURCE_ERRORS)
    if done.not_recreated:
        print(f"lb: {job.name}: {done.not_recreated} layouts and the like could not be made anew", file=sys.stderr)
        codes.append(EXIT_SOURCE_ERRORS)
    if done.failed:
        print(f"lb: {job.name}: {done.failed} objects could not be restored", file=sys.stderr)
        codes.append(_FAILED)
    return combined_exit_code(codes)
