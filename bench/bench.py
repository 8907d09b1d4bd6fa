"""Measure lb beside rsync, restic and borg: ``make bench``, or ``python -m bench.bench --help``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable

from bench.catalog import synthetic_catalog
from bench.changelog import reduced_records
from bench.device import device_reading
from bench.first import first_backup
from bench.incremental import changed_files, renamed_directory
from bench.lustre import changes_on_lustre
from bench.measure import BenchError, NotMeasured
from bench.memory import peak_memory
from bench.report import Result, machine, say, write
from bench.startup import help_time
from bench.trees import Shape
from bench.workspace import Workspace

BENCHMARKS: dict[str, Callable[[Workspace], Result]] = {
    "help": help_time,
    "first": first_backup,
    "incremental": changed_files,
    "rename": renamed_directory,
    "memory": peak_memory,
    "catalog": synthetic_catalog,
    "changelog": reduced_records,
    "device": device_reading,
    "lustre": changes_on_lustre,
}
DOCUMENT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "performance.md")


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--files", type=int, default=200_000, help="files of the tree (default: %(default)s)")
    parser.add_argument("--dirs", type=int, default=2_000, help="directories they lie in (default: %(default)s)")
    parser.add_argument("--changes", type=int, default=100, help="files changed each time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default: %(default)s)")
    parser.add_argument("--scratch", help="an existing folder to work below (default: $TMPDIR)")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it works, proves nothing")
    parser.add_argument(
        "--document",
        help="file whose tables are replaced (default: docs/performance.md; none with --quick)",
    )
    parser.add_argument("--no-document", action="store_true", help="only print the results")
    return parser.parse_args()


def workspace_of(chosen: argparse.Namespace, scratch: str) -> Workspace:
    """What is measured, by the options."""
    if chosen.quick:
        return Workspace(
            scratch=scratch,
            shape=Shape(files=2_000, directories=20),
            changes=20,
            rounds=2,
            renamed_files=500,
            memory_files=(1_000, 3_000, 10_000),
            catalog_objects=100_000,
            catalog_changes=1_000,
            changelog_records=200_000,
            changelog_fids=20_000,
            device_records=2_000,
            lustre_files=(1_000, 10_000),
            lustre_changes=100,
            lustre_turns=1,
        )
    return Workspace(
        scratch=scratch,
        shape=Shape(files=chosen.files, directories=chosen.dirs),
        changes=chosen.changes,
        rounds=chosen.rounds,
        renamed_files=10_000,
        memory_files=(100_000, 300_000, 1_000_000),
        catalog_objects=10_000_000,
        catalog_changes=100_000,
        changelog_records=100_000_000,
        changelog_fids=20_000_000,
        device_records=100_000,
        lustre_files=(100_000, 1_000_000),
        lustre_changes=10_000,
        lustre_turns=3,
    )


def main() -> int:
    """Measure, print, write; 1 when a benchmark could not be carried out."""
    chosen = options()
    scratch = tempfile.mkdtemp(prefix="lb-bench-", dir=chosen.scratch)
    results: list[Result] = []
    failed = False
    try:
        workspace = workspace_of(chosen, scratch)
        where = machine(scratch)
        for name in chosen.only or BENCHMARKS:
            say(f"{name}:")
            try:
                result = BENCHMARKS[name](workspace)
            except NotMeasured as exc:
                say(f"  left out: {exc}")
                continue
            except BenchError as exc:
                say(f"  FAILED: {exc}")
                failed = True
                continue
            results.append(result)
            print(f"\n## {result.title}\n\n{result.table()}\n", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(where)
    document = chosen.document or (None if chosen.quick else DOCUMENT)
    if document and results and not chosen.no_document:
        write(document, results, where)
        say(f"written: {document}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
