"""A whole backup of a real tree, end to end: first backup, changes, second backup, restore, comparison.

Run it with ``make demo``. Everything happens in a scratch folder (below ``$TMPDIR``), which is removed
at the end unless ``--keep`` is given. The exit status is 0 only when every comparison found no difference.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Argument = str | bytes

SPARSE_FILE = "disk.img"
SPARSE_BYTES = 64 << 20

PREPARATIONS: Sequence[tuple[Argument, ...]] = (
    ("truncate", "-s", str(SPARSE_BYTES), SPARSE_FILE),
    ("dd", "if=argparse.py", f"of={SPARSE_FILE}", "bs=4k", "seek=2000", "conv=notrunc", "status=none"),
    ("ln", "pickle.py", "pickle_by_another_name.py"),
    ("ln", "-s", "json/decoder.py", "decoder.py"),
    ("mkfifo", "a_pipe"),
)
"""What the standard library has none of: a file with holes, a hard link, a symbolic link, a named pipe."""

CHANGES: Sequence[tuple[str, Sequence[tuple[Argument, ...]]]] = (
    (
        "pack a directory, and unpack it elsewhere",
        (
            ("tar", "-cf", "mail.tar", "email"),
            ("mkdir", "unpacked"),
            ("tar", "-xf", "mail.tar", "-C", "unpacked"),
        ),
    ),
    (
        "rename directories: no content is copied for these",
        (("mv", "encodings", "codec_tables"), ("mv", "json", "html/")),
    ),
    (
        "let two directories swap their names",
        (("mv", "http", "for_a_moment"), ("mv", "urllib", "http"), ("mv", "for_a_moment", "urllib")),
    ),
    (
        "edit files: by replacing them, and in place",
        (
            ("sed", "-i", "1i # a line that the demo put here", "argparse.py", "subprocess.py"),
            ("truncate", "-s", "1000", "tarfile.py"),
            ("truncate", "-s", "+4096", "typing.py"),
        ),
    ),
    (
        "add a hard link and a symbolic link, remove others",
        (
            ("ln", "copy.py", "the_same_as_copy.py"),
            ("ln", "-s", "no/such/place", "dangling"),
            ("rm", "pickle_by_another_name.py", "decoder.py"),
        ),
    ),
    (
        "remove a directory; put a directory where a file was",
        (("rm", "-r", "wsgiref"), ("rm", "this.py"), ("mkdir", "this.py")),
    ),
    (
        "change nothing but a mode and a time",
        (("chmod", "600", "copyreg.py"), ("touch", "-d", "2001-02-03 04:05:06.789", "shutil.py")),
    ),
    (
        "make a file whose name holds a line break and a byte that is not UTF-8",
        ((b"cp", b"stat.py", b"strange\n\xffname.py"),),
    ),
)


class DemoError(Exception):
    """A step of the demo failed; nothing after it would mean anything."""


def say(text: str = "") -> None:
    print(text, flush=True)


def chapter(text: str) -> None:
    say(f"\n── {text} " + "─" * max(2, 76 - len(text)))


def shown(argument: Argument) -> str:
    """An argument as one could type it into bash."""
    text = os.fsdecode(argument)
    if text.isprintable() and text.isascii():
        return shlex.quote(text)
    plain = set(range(32, 127)) - set(b"'\\")
    return "$'" + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(text)) + "'"


def million_bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


class Stage:
    """Runs the commands of the demo in the scratch folder and shows each of them."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("LB_")}
        beside = Path(sys.executable).with_name("lb")
        found = str(beside) if beside.exists() else shutil.which("lb")
        if found is None:
            raise DemoError("there is no `lb` beside this Python nor on PATH: run the demo with `make demo`")
        self.lb_program = found

    def program(self, *argv: Argument, folder: str = ".", echo: bool = True) -> bytes:
        """Run an ordinary program; its output is returned, and its failure ends the demo."""
        if echo:
            say("   $ " + " ".join(shown(argument) for argument in argv))
        done = subprocess.run(
            [os.fsencode(argument) for argument in argv],
            cwd=self.scratch / folder,
            env={**self.environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            reason = os.fsdecode(done.stderr.strip())
            raise DemoError(f"{shown(argv[0])} ended with status {done.returncode}: {reason}")
        return done.stdout

    def lb(self, *argv: str, lines: int | None = None, quiet: bool = False) -> str:
        """Run ``lb``, show the command and (the first ``lines`` lines of) what it printed."""
        say("\n$ lb " + " ".join(shown(argument) for argument in argv))
        done = subprocess.run(
            [self.lb_program, *argv],
            cwd=self.scratch,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=300,
            check=False,
        )
        output = os.fsdecode(done.stdout)
        if not quiet:
            printed = output.encode("utf-8", "backslashreplace").decode().splitlines()
            for line in printed[:lines]:
                say("  " + line)
            if lines is not None and len(printed) > lines:
                say(f"  … and {len(printed) - lines:,} more lines")
        if done.returncode:
            raise DemoError(f"lb {' '.join(argv)} ended with status {done.returncode}")
        return output

    def backup(self) -> dict[str, Any]:
        """``lb run --json``; the summary of its one job."""
        output = self.lb("-c", "lb.toml", "run", "--json", quiet=True)
        try:
            (summary,) = json.loads(output)["jobs"]
        except (ValueError, KeyError, TypeError) as exc:
            raise DemoError(f"lb run --json printed something unexpected: {output!r}") from exc
        for key, value in summary.items():
            say(f"  {key:16} {value}")
        return dict(summary)


def copy_standard_library(to: Path) -> tuple[int, int]:
    """Copy the running Python's standard library; the number of objects and bytes that arrived."""
    source = Path(sysconfig.get_paths()["stdlib"])
    left_out = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__", "config-*", "test", "tests")
    say(f"copying {source}")
    shutil.copytree(source, to, symlinks=True, ignore=left_out)
    objects, size = 1, 0
    for folder, folders, files in os.walk(to):
        Path(folder).chmod(0o755)  # a system's own library may be read-only
        objects += len(folders) + len(files)
        size += sum(os.lstat(Path(folder, name)).st_size for name in files)
    return objects, size


def differences(stage: Stage, expected: str, found: str, *options: str) -> list[str]:
    """What rsync, an independent program, would have to do to make ``found`` equal to ``expected``.

    The slashes matter: the two roots themselves are compared too, with their times.
    """
    argv = ("rsync", "-aHAXSn", "--delete", "--checksum", "--modify-window=-1", "--itemize-changes", *options)
    lines = stage.program(*argv, f"{expected}/", f"{found}/").splitlines()
    for line in lines[:20]:
        say("     " + line.decode("utf-8", "backslashreplace"))
    say(f"     {len(lines):,} differences" if lines else "     no difference")
    return [os.fsdecode(line) for line in lines]


def rsync_would_copy(stage: Stage) -> tuple[int, int]:
    """Files and bytes that ``rsync -a --delete`` would transfer for the same changes."""
    output = stage.program("rsync", "-aHAXn", "--delete", "--stats", "source/", "pristine/").decode()
    numbers = {}
    for line in output.splitlines():
        name, _, value = line.partition(": ")
        digits = value.split(" ")[0].replace(",", "")
        if digits.isdigit():
            numbers[name] = int(digits)
    return numbers["Number of regular files transferred"], numbers["Total transferred file size"]


@contextlib.contextmanager
def scratch_folder(keep: bool) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix="lb-demo-"))
    try:
        yield scratch
    finally:
        if keep:
            say(f"\nkept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
            if scratch.exists():
                say(f"\ncould not remove {scratch}")


def demonstrate(stage: Stage) -> int:
    """The whole story; the number of problems found."""
    chapter("A real tree: this Python's standard library")
    objects, size = copy_standard_library(stage.scratch / "source")
    for argv in PREPARATIONS:
        stage.program(*argv, folder="source")
    objects += len(PREPARATIONS) - 1

    chapter("First backup")
    stage.lb("init", "--source", "source", "--target", "backup", "--job", "demo", "-c", "lb.toml")
    first = stage.backup()
    say("\na copy of the tree as it is now, by another program, to compare with later:")
    stage.program("cp", "-a", "source", "pristine")

    chapter("Programs change the tree")
    for purpose, commands in CHANGES:
        say(f"\n{purpose}")
        for argv in commands:
            stage.program(*argv, folder="source")
    say("\nwhat `rsync -a --delete` would copy for these changes:")
    rsync_files, rsync_bytes = rsync_would_copy(stage)
    say(f"     {rsync_files:,} files, {million_bytes(rsync_bytes)}")

    chapter("Second backup: only what changed")
    stage.lb("-c", "lb.toml", "run", "--dry-run", lines=12)
    second = stage.backup()

    chapter("Looking into the history")
    before, after = str(first["run"]), str(second["run"])
    stage.lb("-c", "lb.toml", "runs")
    stage.lb("-c", "lb.toml", "diff", before, after, lines=15)
    stage.lb("-c", "lb.toml", "ls", "--at", before, "json")
    stage.lb("-c", "lb.toml", "history", "html/json/decoder.py")
    stage.lb("-c", "lb.toml", "status")

    chapter("Restoring the first point in time")
    stage.lb("-c", "lb.toml", "restore", "--at", before, ".", "--to", "restored", lines=10)

    chapter("Comparing, with rsync as the judge")
    say("the restored point in time with the copy made before the changes:")
    restored = differences(stage, "pristine", "restored")
    say("the backup's tree, an ordinary folder, with the source as it is now:")
    mirrored = differences(stage, "source", "backup/tree")
    holes = [
        f"{folder}/{SPARSE_FILE} has lost its holes"
        for folder in ("restored", "backup/tree")
        if (stage.scratch / folder / SPARSE_FILE).lstat().st_blocks * 512 > SPARSE_BYTES // 4
    ]

    def verdict(lines: Sequence[str]) -> str:
        return f"{len(lines):,} DIFFERENCES" if lines else "identical"

    chapter("Summary")
    say(f"the tree                  {objects:,} objects, {million_bytes(size)}")
    say(f"                          and a file of {million_bytes(SPARSE_BYTES)} that is nearly all holes")
    for label, run in (("first backup", first), ("after the changes", second)):
        say(
            f"{label:25} {run['files_copied']:,} files copied, {million_bytes(run['bytes_copied'])},"
            f" in {run['seconds']:.1f} s"
        )
    say(f"  rsync would have copied {rsync_files:,} files, {million_bytes(rsync_bytes)}")
    say(
        f"  objects                 {second['objects_new']:,} new, {second['objects_changed']:,} changed,"
        f" {second['objects_removed']:,} removed"
    )
    say(f"restored point in time    {verdict(restored)}")
    say(f"the backup's tree         {verdict(mirrored)}")
    say(f"holes                     {', '.join(holes) or 'kept'}")
    return len(restored) + len(mirrored) + len(holes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder for looking around")
    options = parser.parse_args()
    if shutil.which("rsync") is None:
        say("the demo needs rsync: it compares the trees with it")
        return 1
    with scratch_folder(options.keep) as scratch:
        try:
            problems = demonstrate(Stage(scratch))
        except DemoError as exc:
            say(f"\nFAILED: {exc}")
            return 1
    say(f"\nFAILED: {problems:,} differences" if problems else "\nAll is well.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
