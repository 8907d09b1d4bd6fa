"""Tables of results: on the terminal, and in ``docs/performance.md`` between marker comments."""

from __future__ import annotations

import datetime
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench.peers import Borg, Lb, Restic, Rsync, version


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The outcome of one benchmark."""

    name: str
    """Names the place in the document."""
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    """Sentences below the table: goals, what was checked, what was left out."""

    def table(self) -> str:
        """The table and the notes, as Markdown that is readable as it is."""
        lines = [tuple(self.header), *(tuple(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        text = [
            _row(lines[0], widths),
            "|" + "|".join(_rule(column, width) for column, width in enumerate(widths)) + "|",
        ]
        text += [_row(line, widths) for line in lines[1:]]
        if self.notes:
            text += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(text)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if column == 0 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"


def _rule(column: int, width: int) -> str:
    return "-" * (width + 2) if column == 0 else "-" * (width + 1) + ":"


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def filesystem(path: str) -> str:
    """Type of the filesystem that holds ``path``."""
    path = os.path.realpath(path)
    best, kind = "", "unknown"
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            _, mount, fstype = line.split()[:3]
            mount = mount.replace("\\040", " ")
            inside = path == mount or path.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best):
                best, kind = mount, fstype
    return kind


def machine(scratch: str) -> str:
    """Where and with what the figures were taken, in one paragraph."""
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    programs = [f"Python {platform.python_version()}"]
    for peer in (Lb, Rsync, Restic, Borg):
        said = version(*peer.version_command)
        number = re.search(r"\d+(\.\d+)+", said) if said else None
        programs.append(f"{peer.name} {number.group() if number else said or 'not installed'}")
    return (
        f"Measured on {today}: {_processor()}, {len(os.sched_getaffinity(0))} cores, "
        f"{_memory_bytes() / 2**30:.1f} GiB memory, Linux {platform.release()}, {filesystem(scratch)}; "
        f"{', '.join(programs)}."
    )


def write(document: str, results: Sequence[Result], where: str) -> None:
    """Put each result between its markers; what people wrote outside of them stays as it is."""
    with open(document, encoding="utf-8") as file:
        text = file.read()
    for result in results:
        begin, end = f"<!-- bench:{result.name} -->", "<!-- /bench -->"
        block = f"{begin}\n{result.table()}\n\n{where}\n{end}"
        pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
        if pattern.search(text):
            text = pattern.sub(lambda _, block=block: block, text, count=1)  # type: ignore[misc]
        else:
            text = f"{text.rstrip()}\n\n## {result.title}\n\n{block}\n"
    part = document + ".part"
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(part, document)


def say(text: str) -> None:
    """What is going on, on stderr."""
    print(text, file=sys.stderr, flush=True)
