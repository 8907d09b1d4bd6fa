"""``lb ls``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lbcore.cli.context import Lb
from lbcore.cli.opening import at_option, job_option, open_catalog, print_json_list, row_object
from lbcore.cli.text import printable

if TYPE_CHECKING:
    from lbcore.catalog.catalog import Catalog
    from lbcore.catalog.objects import Row
    from lbcore.points import Place


@click.command()
@click.argument("path", default=".", required=False)
@at_option
@click.option("-l", "--long", is_flag=True, help="Show mode, owner, group, size and modification time, too.")
@click.option("-R", "--recursive", is_flag=True, help="List everything below, too, with its path.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@job_option
@click.pass_obj
def ls(lb: Lb, /, *, path: str, at: str, long: bool, recursive: bool, as_json: bool, job_name: str | None) -> None:
    """List what the backup holds at PATH, by default the whole job's root: now, or at an earlier time."""
    from lbcore import points  # noqa: PLC0415 - help must not wait for the core

    job = lb.job(job_name)
    with open_catalog(job) as catalog:
        run = points.find_point(catalog, at).run
        place = points.find_place(catalog, run, points.inside_path(os.fsencode(path), job.source))
        entries = _entries(catalog, run, place, recursive)
        if as_json:
            print_json_list({"path": printable(path or b"."), **row_object(row)} for path, _, row in entries)
            return
        for inside, name, row in entries:
            shown = printable(inside if recursive else name)
            print(_long(row, shown) if long else shown)


def _entries(catalog: Catalog, run: int, place: Place, recursive: bool) -> Iterator[tuple[bytes, bytes, Row]]:
    """(path, name, object) of what a directory holds, or of the one object that is none."""
    from lbcore.catalog.past import Past  # noqa: PLC0415

    if not stat.S_ISDIR(place.row.mode):
        yield place.path, place.path, place.row
        return
    past = Past(catalog.database)
    levels = [(place.path, past.children(place.row.obj, run))]
    while levels:
        above, children = levels[-1]
        child = next(children, None)
        if child is None:
            levels.pop()
            continue
        path = above + b"/" + child.name if above else child.name
        yield path, child.name, child.row
        if recursive and stat.S_ISDIR(child.row.mode):
            levels.append((path, past.children(child.row.obj, run)))


def _long(row: Row, shown: str) -> str:
    from lbcore.points import local_time  # noqa: PLC0415

    size = f"{row.size}" if stat.S_ISREG(row.mode) else "-"
    if stat.S_ISBLK(row.mode) or stat.S_ISCHR(row.mode):
        size = f"{os.major(row.rdev)},{os.minor(row.rdev)}"
    target = f" -> {printable(row.link_target)}" if row.link_target is not None else ""
    owner = f"{row.uid:>5} {row.gid:>5}"
    return f"{stat.filemode(row.mode)} {owner} {size:>12} {local_time(row.mtime_ns)} {shown}{target}"
