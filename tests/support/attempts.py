"""A source with a history, and as many copies of its backup as a test wants to ill-treat.

The identity of a source is its inodes, so the source stays where it is and is only read; each attempt gets a
copy of the target as it was before.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import xxhash

from lbcore.run import Outcome
from lbcore.testing import Tree, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.points import read_point

LB = (sys.executable, "-c", "from lbcore.cli.main import main; main()")
"""``lb`` as a program, whether or not its script is installed."""

PRIVILEGED = os.geteuid() == 0


def strace_works() -> bool:
    """Whether this host lets us trace, and strace can inject faults."""
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(
        ["strace", "-f", "-o", os.devnull, "-e", "trace=chdir", "-e", "inject=chdir:error=EIO:when=1", "true"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


needs_strace = pytest.mark.skipif(not strace_works(), reason="strace is not installed, or tracing is not allowed here")
needs_root = pytest.mark.skipif(not PRIVILEGED, reason="needs root: mounts, owners, other users")


def write(path: Path, content: bytes | str = b"") -> None:
    """Make or overwrite a file, its inode kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.truncate()


def remove_tree(path: Path) -> None:
    """All of it; an ordinary user cannot remove anything from a folder that its owner may not write in."""
    if not PRIVILEGED:
        path.chmod(0o700)
        for folder, folders, _ in os.walk(path):
            for below in (Path(folder) / name for name in folders):
                if not below.is_symlink():
                    below.chmod(0o700)
    shutil.rmtree(path)


class Source:
    """A small tree, and three states of it: every kind of object and every kind of change in few objects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def begin(self) -> None:
        """What the first run finds."""
        at = self.path
        for name in (
            "plain",
            "same",
            "swap-1",
            "swap-2",
            "over",
            "victim",
            "gone",
            "becomes-directory",
            "moved-edited",
        ):
            write(at / name, f"{name}, first\n")
        for name in ("deep/er/file", "deep/er/other", "deep/beside", "x/y/z", "left/in", "right/in", "doomed/a/b"):
            write(at / name, f"{name}, first\n")
        write(at / "becomes-file" / "inner", "inside\n")
        write(at / "linked", "two names\n")
        os.link(at / "linked", at / "deep" / "linked-too")
        write(at / "unlinked", "loses a name\n")
        os.link(at / "unlinked", at / "deep" / "unlinked-too")
        write(at / "all-names", "loses all\n")
        os.link(at / "all-names", at / "deep" / "all-names-too")
        os.symlink("plain", at / "symlink")
        os.symlink("nowhere", at / "becomes-plain")
        os.mkfifo(at / "fifo", 0o640)
        write(at / "tool", "#!/bin/sh\n")
        (at / "tool").chmod(0o4755)
        with (at / "sparse").open("wb") as file:
            file.truncate(3 << 20)
            file.seek(2 << 20)
            file.write(b"island" * 1000)
        os.setxattr(at / "plain", "user.kept", b"value")
        write(at / "closed" / "shut" / "file", "in folders that their owner may not write in\n")
        (at / "closed" / "shut").chmod(0o500)
        (at / "closed").chmod(0o500)
        write(at / "sealed" / "file", "in a folder that moves\n")
        (at / "sealed").chmod(0o500)

    def go_on(self) -> None:
        """What the second run finds: it leaves versions."""
        at = self.path
        write(at / "plain", "plain, second state\n")
        write(at / "linked", "two names, second\n")
        (at / "gone").unlink()
        os.rename(at / "x" / "y", at / "y")
        write(at / "short-lived" / "file", "seen by one run only\n")
        write(at / "tool", "#!/bin/bash\n")

    def change(self) -> None:
        """What the run that is cut short finds."""
        at = self.path
        write(at / "new" / "file", "new\n")
        (at / "new" / "file").chmod(0o666)  # more than the umask lets a program make
        write(at / "new" / "empty", "")
        (at / "new" / "empty").chmod(0o4755)
        os.link(at / "new" / "file", at / "new" / "second-name")
        os.symlink("../plain", at / "new" / "symlink")
        os.mkfifo(at / "new" / "fifo")
        if PRIVILEGED:
            os.mknod(at / "new" / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            os.chown(at / "deep" / "beside", 12, 34)
            os.chown(at / "tool", 56, 78)
            (at / "tool").chmod(0o4755)
        write(at / "plain", "plain, third state\n")
        write(at / "linked", "two names, third\n")
        write(at / "sparse", b"x" * 70_000)
        write(at / "tool", "#!/bin/zsh -f\n")
        before = (at / "same").stat()
        write(at / "same", "same, FIRST\n")
        os.utime(at / "same", ns=(before.st_atime_ns, before.st_mtime_ns))
        for one, other in (("swap-1", "swap-2"), ("left", "right")):
            os.rename(at / one, at / "passing")
            os.rename(at / other, at / one)
            os.rename(at / "passing", at / other)
        os.rename(at / "over", at / "victim")
        os.rename(at / "moved-edited", at / "new" / "moved-edited")
        write(at / "new" / "moved-edited", "moved, then edited\n")
        # A directory and its own child change places, and a file below them changes too.
        os.rename(at / "deep" / "er", at / "er")
        os.rename(at / "deep", at / "er" / "deep")
        write(at / "er" / "file", "at another place\n")
        os.link(at / "y" / "z", at / "z-too")
        (at / "unlinked").unlink()
        (at / "all-names").unlink()
        (at / "er" / "deep" / "all-names-too").unlink()
        shutil.rmtree(at / "doomed")
        shutil.rmtree(at / "short-lived")
        (at / "becomes-directory").unlink()
        write(at / "becomes-directory" / "inner", "was a file\n")
        shutil.rmtree(at / "becomes-file")
        write(at / "becomes-file", "was a directory\n")
        (at / "becomes-plain").unlink()
        write(at / "becomes-plain", "was a link\n")
        (at / "symlink").unlink()
        os.symlink("elsewhere", at / "symlink")
        (at / "closed" / "shut").chmod(0o700)
        write(at / "closed" / "shut" / "file", "not the same any more\n")
        write(at / "closed" / "shut" / "new", "another\n")
        (at / "closed" / "shut").chmod(0o500)
        os.rename(at / "sealed", at / "sealed-still")
        (at / "fifo").chmod(0o600)
        (at / "x").chmod(0o711)
        os.setxattr(at / "plain", "user.kept", b"another")
        os.setxattr(at / "y", "user.new", b"on a directory")
        os.utime(at / "y" / "z", ns=(1, 987_654_321_123_456_789))


class Backup:
    """One copy of the target, and what is done to it."""

    def __init__(self, series: Series, folder: Path, points: dict[int, Tree]) -> None:
        self.series = series
        self.points = points
        self.folder = folder
        self.target = folder / "target"
        self.beside: set[str] = set()
        self.config = folder / "lb.toml"
        lines = ["[job.job]", f'source = "{series.source.path}"', f'target = "{self.target}"', *series.settings]
        self.config.write_text("\n".join([*lines, ""]))

    def command(self, *arguments: str) -> list[str]:
        """``lb`` with this backup's configuration."""
        return [*LB, "-c", str(self.config), *arguments]

    def run(
        self, *before: str, arguments: Sequence[str] = ("run",), environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """``lb run`` in a process of its own, behind ``before``."""
        return subprocess.run(
            [*before, *self.command(*arguments)],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env={**os.environ, **(environment or {})},
            check=False,
            timeout=120,
        )

    def strace(
        self, *options: str, arguments: Sequence[str] = ("run",), environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """``lb run`` under strace; its log is ``self.trace``."""
        log = str(self.folder / "strace.log")
        return self.run("strace", "-f", "-y", "-o", log, *options, arguments=arguments, environment=environment)

    @property
    def trace(self) -> str:
        """What strace wrote last."""
        return (self.folder / "strace.log").read_text(errors="surrogateescape")

    def run_here(self) -> Outcome:
        """``lb run`` within this process, which costs a tenth."""
        job = Job(os.fsencode(self.folder), name=self.folder.name)  # not two of one name at once in a process
        job.source, job.target = os.fsencode(self.series.source.path), os.fsencode(self.target)
        job.configure()
        return job.run()

    def assert_converges(self, *, strays: bool = False) -> None:
        """The next run ends well, in the state that an unbroken run would have left."""
        outcome = self.run_here()
        assert (outcome.state, outcome.exit_code) == ("committed", 0), outcome
        self.assert_whole(strays=strays)

    def assert_converges_with(self, *beside: str) -> None:
        """The same, when there are more files in ``.lb`` than usual."""
        self.beside = set(beside)
        self.assert_converges()

    def assert_whole(self, *, strays: bool = False) -> None:
        """Mirror, catalog, every point in time, versions and stage are as they must be between two runs."""
        now = self.series.now
        found = compare_trees(now, read_tree(self.target / "tree"))
        assert found == [], found
        runs = self.runs()
        assert {state for _, state in runs} == {"committed"}, runs
        for number, point in self.points.items():
            found = compare_trees(point, read_point(os.fsencode(self.target), number))
            assert found == [], (number, found)
        found = compare_trees(now, read_point(os.fsencode(self.target), runs[-1][0]))
        assert found == [], (runs, found)
        self._assert_catalog_is_sound()
        self._assert_run_files([number for number, _ in runs])
        self._assert_nothing_is_left(strays)

    def drop(self) -> None:
        """It went well: give the space back."""
        remove_tree(self.folder)

    def runs(self) -> list[tuple[int, str]]:
        """Number and state of each run."""
        with self.database() as database:
            return database.execute("SELECT run, state FROM run ORDER BY run").fetchall()

    def database(self) -> contextlib.closing[sqlite3.Connection]:
        """The catalog, as any program could open it."""
        return contextlib.closing(sqlite3.connect(self.target / ".lb" / "job.db"))

    def _assert_catalog_is_sound(self) -> None:
        with self.database() as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            for table in ("step", "step_name", "seen_listing", "seen_name", "written_directory"):
                assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
            wanted = database.execute(
                f"SELECT obj, data_run FROM object_past WHERE (mode & {0o170000:d}) = {stat.S_IFREG:d} "
                "EXCEPT SELECT obj, data_run FROM object"
            ).fetchall()
        versions = [path.name for path in (self.target / ".lb" / "versions").rglob("*") if path.is_file()]
        assert sorted(versions) == sorted(f"{obj}.{run}" for obj, run in wanted), (versions, wanted)

    def _assert_run_files(self, runs: Iterable[int]) -> None:
        folder = self.target / ".lb" / "runs"
        assert {path.name for path in folder.iterdir()} == {f"{run}{end}" for run in runs for end in ("", ".xxh128")}
        for run in runs:
            digest = xxhash.xxh3_128_hexdigest((folder / str(run)).read_bytes())
            assert (folder / f"{run}.xxh128").read_text() == f"{digest}\n"

    def _assert_nothing_is_left(self, strays: bool) -> None:
        lb = self.target / ".lb"
        left = [path for path in (lb / "stage").rglob("*") if not path.is_dir()]
        assert left == [], left
        assert list((lb / "stage" / "in").iterdir()) == []
        expected = {"collecting", "epoch", "job.db", "job.db-turn", "lock", "log", "runs", "stage", "versions"}
        assert {path.name for path in lb.iterdir()} - ({"strays"} if strays else set()) - self.beside == expected


class Series:
    """A source in its third state, and the backup of the first two."""

    def __init__(self, base: Path, *, settings: Sequence[str] = (), more: Callable[[Path], None] | None = None) -> None:
        """
        :param settings: lines for the job's section.
        :param more: makes further changes for the third state.
        """
        self.base = base
        self.settings = settings
        self.points: dict[int, Tree] = {}
        self.source = Source(base / "source")
        self._attempts = itertools.count(1)
        self.empty = base / "empty"
        self.empty.mkdir()
        first = self.backup(self.empty)
        self.source.begin()
        self._run(first, 1)
        self.source.go_on()
        self._run(first, 2)
        self.pristine = first.target
        self.source.change()
        if more is not None:
            more(self.source.path)
        self.now = read_tree(self.source.path)

    def _run(self, backup: Backup, number: int) -> None:
        outcome = backup.run_here()
        assert (outcome.state, outcome.exit_code, outcome.run) == ("committed", 0, number), outcome
        self.points[number] = read_tree(self.source.path)
        self.now = self.points[number]

    def backup(self, of: Path | None = None, points: dict[int, Tree] | None = None) -> Backup:
        """A copy of the backup as it was before the third run (or of another target with other points in time)."""
        folder = self.base / f"attempt-{next(self._attempts)}"
        folder.mkdir()
        subprocess.run(["cp", "-a", "--reflink=auto", str(of or self.pristine), str(folder / "target")], check=True)
        return Backup(self, folder, self.points if points is None else points)

    def first_backup(self) -> Backup:
        """An empty target: everything is to be brought, and there is no earlier point in time."""
        return self.backup(self.empty, points={})


def until_nothing_fires(attempt: Callable[[int], bool], *, start: int = 1, step: int = 1, together: int = 2) -> int:
    """Call ``attempt`` with start, start + step, ... until it says that nothing fired; returns how often it did."""
    fired = 0
    with ThreadPoolExecutor(together) as pool:
        number = start
        while True:
            numbers = range(number, number + together * step, step)
            results = list(pool.map(attempt, numbers))
            fired += sum(results)
            if not all(results):
                return fired
            number += together * step


def was_killed(done: subprocess.CompletedProcess[Any]) -> bool:
    """Whether SIGKILL ended it; strace ends as its main tracee did."""
    return done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)


def host_name() -> str:
    """As the lock file has it."""
    return socket.gethostname()
