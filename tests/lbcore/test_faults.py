"""Disks that are full, broken, read-only or gone; databases that are damaged. A clear error, and nothing lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbcore.catalog import database as catalog_database
from lbcore.catalog.database import Database
from lbcore.catalog.schema import MIGRATIONS
from lbcore.errors import CatalogError
from tests.support.attempts import Series, needs_root, needs_strace, remove_tree, until_nothing_fires, was_killed

pytestmark = pytest.mark.sweep

ARRIVALS = ".lb/stage/in/0/0"
SOURCE_ERRORS = 3


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return Series(tmp_path_factory.mktemp("faults"))


def assert_clear(done: subprocess.CompletedProcess[str], *words: object, code: int = 1) -> None:
    """It failed with one line that says what, where, and what to do."""
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("lb: "), lines
    for word in words:
        assert str(word) in lines[0], (word, lines[0])


def sweep(series: Series, call: str, error: str, *paths: str, lasting: bool, start: int = 1, step: int = 1) -> int:
    """Let each such call fail (``lasting``: and all after it); returns how many there were."""

    def attempt(number: int) -> bool:
        backup = series.backup()
        narrowed = [option for path in paths or ("",) for option in ("-P", str(backup.target / path))]
        when = f"{number}{'+' if lasting else ''}"
        done = backup.strace("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}",
                             *(narrowed if paths else ()))  # fmt: skip
        fired = "(INJECTED)" in backup.trace
        try:
            if fired and done.returncode != 0:
                assert_clear(done, backup.target)
            else:
                # Only the run's log may be missing: that is said, and does not stop a backup.
                assert done.returncode == 0, done
                assert all("log/3.log" in line for line in done.stderr.splitlines()), done
            backup.assert_converges()
        except AssertionError as failed:
            at = [line for line in backup.trace.splitlines() if "(INJECTED)" in line][:1]
            raise AssertionError(f"{error} at {call} number {when} {paths} {at}: {failed}") from failed
        backup.drop()
        return fired

    return until_nothing_fires(attempt, start=start, step=step)


THIRDS = [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
"""Every third call, always; the others in the complete sweep."""


@needs_strace
@pytest.mark.parametrize("start", THIRDS)
@pytest.mark.parametrize("call", ["mkdirat", "symlinkat", "mknodat", "linkat", "renameat", "renameat2", "rename"])
def test_a_disk_that_becomes_full_fails_the_run_clearly_and_loses_nothing(
    series: Series, call: str, start: int
) -> None:
    assert sweep(series, call, "ENOSPC", lasting=True, start=start, step=3) > 0 or start > 1


@needs_strace
@pytest.mark.parametrize("path", [".lb/lock", ".lb/job.db-wal", ".lb/log/3.log", ".lb/epoch.new", ".lb/runs/3.part",
                                  ".lb/runs/3.xxh128", ARRIVALS])  # fmt: skip
def test_a_disk_without_room_for_a_new_file_fails_the_run_clearly(series: Series, path: str) -> None:
    assert sweep(series, "openat", "ENOSPC", path, lasting=True, step=3) > 0


@needs_strace
@pytest.mark.parametrize("start", THIRDS)
@pytest.mark.parametrize("call", ["fsync", "fdatasync", "syncfs", "unlinkat", "utimensat", "fchmodat", "ftruncate"])
def test_an_error_of_the_disk_fails_the_run_clearly_and_loses_nothing(series: Series, call: str, start: int) -> None:
    assert sweep(series, call, "EIO", lasting=False, start=start, step=3) > 0 or start > 1


@needs_strace
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_write_that_fails_fails_the_run_clearly_and_loses_nothing(series: Series, error: str) -> None:
    assert sweep(series, "pwrite64", error, lasting=error == "ENOSPC", step=31) > 3


@needs_strace
@pytest.mark.parametrize("path", [".lb/epoch.new", ".lb/log/3.log", ".lb/runs/3.xxh128"])
def test_a_small_file_that_cannot_be_written_fails_the_run_clearly(series: Series, path: str) -> None:
    assert sweep(series, "write", "ENOSPC", path, lasting=True, step=4) > 0


# -- real disks -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(at: Path, *arguments: str) -> Iterator[None]:
    """A filesystem at ``at``, for as long as the block runs."""
    tried = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"this host does not let us mount: {tried.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


@needs_root
@pytest.mark.parametrize("room", ["size=100k", "size=300k", "nr_inodes=16", "nr_inodes=45"])
def test_a_first_backup_to_a_disk_that_is_too_small_goes_on_when_it_has_grown(series: Series, room: str) -> None:
    backup = series.first_backup()
    with mounted(backup.target, "-t", "tmpfs", "-o", room, "lb-test"):
        assert_clear(backup.run(), backup.target)
        assert_clear(backup.run(), backup.target)
        subprocess.run(["mount", "-o", "remount,size=100m,nr_inodes=10000", str(backup.target)], check=True)
        backup.assert_converges()


@needs_root
@pytest.mark.parametrize("left_kib", [0, 4, 40, 90])
def test_a_disk_that_is_full_fails_the_run_and_the_next_goes_on_once_there_is_room(
    series: Series, left_kib: int
) -> None:
    backup = series.first_backup()
    with mounted(backup.target, "-t", "tmpfs", "-o", "size=20m", "lb-test"):
        subprocess.run(["cp", "-a", f"{series.pristine}/.", str(backup.target)], check=True)
        backup.points = series.points
        filler = backup.target / "filler"
        fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, bytes(4096))
        os.ftruncate(fd, os.fstat(fd).st_size - left_kib * 1024)
        os.close(fd)
        assert_clear(backup.run(), backup.target)
        filler.unlink()
        backup.assert_converges()


@needs_root
def test_a_target_that_is_mounted_read_only_is_named(series: Series) -> None:
    backup = series.backup()
    with mounted(backup.target, "--bind", str(backup.target)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(backup.target)], check=True)
        assert_clear(backup.run(), backup.target, "Read-only file system", "writable")
    backup.assert_converges()


def test_a_target_that_is_a_file_is_named(series: Series) -> None:
    backup = series.first_backup()
    backup.target.rmdir()
    backup.target.write_text("not a folder")
    assert_clear(backup.run(), backup.target)
    assert backup.target.read_text() == "not a folder"


# -- the source -----------------------------------------------------------------------------------------------------


@needs_strace
@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_an_error_of_one_source_file_keeps_its_old_state_and_the_others_are_backed_up(
    series: Series, error: int
) -> None:
    backup = series.backup()
    before = (backup.target / "tree" / "linked").read_bytes()
    done = backup.strace("-e", "trace=pread64", "-P", f"{series.source.path}/linked",
                         "-e", f"inject=pread64:error={errno.errorcode[error]}")  # fmt: skip
    assert "(INJECTED)" in backup.trace
    assert done.returncode == SOURCE_ERRORS, done
    (line,) = done.stderr.splitlines()
    assert line.startswith(("lb: job: linked: ", "lb: job: er/deep/linked-too: ")), line
    assert os.strerror(error) in line
    assert (backup.target / "tree" / "linked").read_bytes() == before
    assert (backup.target / "tree" / "plain").read_text() == "plain, third state\n"
    backup.assert_converges()


@needs_strace
@pytest.mark.parametrize("start", THIRDS)
@pytest.mark.parametrize("call", ["openat", "openat2", "statx"])
def test_whatever_cannot_be_opened_or_looked_at_in_the_source_is_counted_and_removes_nothing(
    series: Series, call: str, start: int
) -> None:
    def attempt(number: int) -> bool:
        backup = series.backup()
        folders = [option for name in ("", "er", "new", "x") for option in ("-P", str(series.source.path / name))]
        done = backup.strace("-e", f"trace={call}", *folders, "-e", f"inject={call}:error=EIO:when={number}")
        injected = [line for line in backup.trace.splitlines() if "(INJECTED)" in line]
        if done.returncode == 1:
            assert str(series.source.path) in done.stderr, done
        elif done.returncode == 0:
            backup.assert_whole()  # it was looked at again, and then it went well
        else:
            assert injected and done.returncode == SOURCE_ERRORS, (injected, done)
        assert "Traceback" not in done.stderr, done
        assert (backup.target / "tree" / "y" / "z").exists() or (backup.target / "tree" / "x" / "y" / "z").exists()
        try:
            backup.assert_converges()
        except AssertionError as failed:
            raise AssertionError(f"EIO at {injected}: {failed}") from failed
        backup.drop()
        return bool(injected)

    assert until_nothing_fires(attempt, start=start, step=3) > 0


@needs_strace
def test_a_source_directory_that_cannot_be_listed_keeps_what_the_backup_has_of_it(series: Series) -> None:
    backup = series.backup()
    done = backup.strace("-e", "trace=getdents64", "-P", f"{series.source.path}/x", "-e", "inject=getdents64:error=EIO")
    assert "(INJECTED)" in backup.trace
    assert done.returncode == SOURCE_ERRORS, done
    assert "lb: job: x: Input/output error" in done.stderr
    assert (backup.target / "tree" / "x").is_dir()
    backup.assert_converges()


@needs_strace
@pytest.mark.parametrize("call", ["readlinkat", "getxattr", "lgetxattr", "llistxattr", "listxattr"])
def test_a_detail_of_the_source_that_cannot_be_read_does_not_stop_the_run(series: Series, call: str) -> None:
    def attempt(number: int) -> bool:
        backup = series.backup()
        done = backup.strace("-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={number}")
        injected = [line for line in backup.trace.splitlines() if "(INJECTED)" in line]
        assert "Traceback" not in done.stderr
        if injected and str(series.source.path) in injected[0]:
            assert done.returncode == SOURCE_ERRORS, (injected, done)
        backup.assert_converges()
        backup.drop()
        return bool(injected)

    until_nothing_fires(attempt, step=9 if call == "llistxattr" else 3)


def test_a_source_that_is_not_there_is_named_and_nothing_is_touched(series: Series) -> None:
    backup = series.backup()
    before = fingerprint(backup.target)
    missing = backup.folder / "not-there"
    backup.config.write_text(backup.config.read_text().replace(str(series.source.path), str(missing)))
    assert_clear(backup.run(), missing, "is it mounted")
    missing.mkdir()
    assert_clear(backup.run(), missing, "is the filesystem mounted? Nothing was changed")
    assert fingerprint(backup.target, but=("lock", "job.db-wal", "job.db-shm")) == before


@needs_strace
def test_a_source_whose_top_cannot_be_listed_stops_the_run_and_removes_nothing(series: Series) -> None:
    backup = series.backup()
    before = fingerprint(backup.target / "tree")
    done = backup.strace("-e", "trace=getdents64", "-P", str(series.source.path), "-e", "inject=getdents64:error=EIO")
    assert_clear(done, "the source cannot be read", "nothing was changed")
    assert fingerprint(backup.target / "tree") == before
    backup.assert_converges()


# -- the database ---------------------------------------------------------------------------------------------------


def fingerprint(folder: Path, but: tuple[str, ...] = ("lock",)) -> dict[str, bytes | None]:
    """Every path below ``folder`` with its content."""
    found: dict[str, bytes | None] = {}
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            full = Path(path) / name
            plain = full.is_file() and not full.is_symlink()
            if name not in but:
                found[str(full.relative_to(folder))] = full.read_bytes() if plain else None
    return found


def overwrite_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        size = path.stat().st_size
        for page in range(2, size // 4096):
            file.seek(page * 4096)
            file.write(b"garbage!" * 512)


def overwrite_the_beginning(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"this was a database" * 100)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [overwrite_the_middle, overwrite_the_beginning, cut_in_half, empty, Path.unlink])
def test_a_damaged_catalog_is_named_and_nothing_else_is_touched(series: Series, damage: Callable[[Path], None]) -> None:
    backup = series.backup()
    catalog = backup.target / ".lb" / "job.db"
    kept = catalog.read_bytes()
    damage(catalog)
    database = ("lock", "job.db", "job.db-wal", "job.db-shm")
    before = fingerprint(backup.target, but=database)
    for _ in range(2):
        done = backup.run()
        assert_clear(done, catalog)
        assert "bring back" in done.stderr.lower()
    assert fingerprint(backup.target, but=(*database, "3.log")) == before
    catalog.write_bytes(kept)
    for rest in ("job.db-wal", "job.db-shm"):
        (catalog.parent / rest).unlink(missing_ok=True)
    backup.assert_converges()


def test_a_catalog_of_a_newer_version_is_refused_and_not_touched(series: Series) -> None:
    backup = series.backup()
    with backup.database() as database:
        database.execute("PRAGMA user_version = 99")
    before = fingerprint(backup.target)
    assert_clear(backup.run(), "job.db", "newer lb", "format 99")
    assert fingerprint(backup.target) == before


NEXT_MIGRATIONS = (*MIGRATIONS, "CREATE TABLE extra_one (a INTEGER);\nINSERT INTO extra_one SELECT run FROM run;\n",
                   "ALTER TABLE extra_one ADD COLUMN b INTEGER;\nUPDATE extra_one SET b = a * 2;\n")  # fmt: skip


def test_an_older_catalog_is_migrated_and_a_copy_from_before_is_kept(
    series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = series.backup()
    catalog = backup.target / ".lb" / "job.db"
    with backup.database() as database:
        before = "".join(database.iterdump())
    monkeypatch.setattr(catalog_database, "MIGRATIONS", NEXT_MIGRATIONS)
    Database(os.fsencode(catalog)).close()
    with backup.database() as database:
        assert database.execute("PRAGMA user_version").fetchone() == (len(NEXT_MIGRATIONS),)
        assert database.execute("SELECT a, b FROM extra_one ORDER BY a").fetchall() == [(1, 2), (2, 4)]
    copy = catalog.with_name(f"job.db.before-{len(MIGRATIONS) + 1}")
    with contextlib.closing(sqlite3.connect(copy)) as database:
        assert "".join(database.iterdump()) == before


def test_a_migration_that_fails_leaves_the_catalog_as_it_was(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = series.backup()
    catalog = backup.target / ".lb" / "job.db"
    broken = "CREATE TABLE extra_one (a INTEGER);\nINSERT INTO nowhere VALUES (1);\n"
    monkeypatch.setattr(catalog_database, "MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(CatalogError, match=r"job\.db"):
        Database(os.fsencode(catalog))
    monkeypatch.undo()
    backup.assert_converges_with(f"job.db.before-{len(MIGRATIONS) + 1}")


MIGRATE = """
import os, sys
from lbcore.catalog import database
database.MIGRATIONS = tuple(sys.argv[2:])
database.Database(os.fsencode(sys.argv[1])).close()
"""


@needs_strace
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "rename", "unlink", "fsync", "openat"])
def test_a_migration_may_be_killed_anywhere(series: Series, call: str) -> None:
    def attempt(number: int) -> bool:
        backup = series.backup()
        catalog = backup.target / ".lb" / "job.db"
        with backup.database() as database:
            before = "".join(database.iterdump())
        copy = catalog.with_name(f"job.db.before-{len(MIGRATIONS) + 1}")
        places = [option for path in (catalog, copy, f"{copy}.part", f"{catalog}-wal", f"{copy}.part-journal",
                                      catalog.parent) for option in ("-P", str(path))]  # fmt: skip
        command = [sys.executable, "-c", MIGRATE, str(catalog), *NEXT_MIGRATIONS]
        killed = subprocess.run(
            ["strace", "-f", "-o", os.devnull, "-e", f"trace={call}", *places,
             "-e", f"inject={call}:signal=KILL:when={number}", *command],
            check=False,
        )  # fmt: skip
        assert was_killed(killed) or killed.returncode == 0
        subprocess.run(command, check=True)
        with backup.database() as database:
            assert database.execute("PRAGMA user_version").fetchone() == (len(NEXT_MIGRATIONS),)
            assert database.execute("SELECT a, b FROM extra_one ORDER BY a").fetchall() == [(1, 2), (2, 4)]
        with contextlib.closing(sqlite3.connect(copy)) as database:
            assert "".join(database.iterdump()) == before
        backup.drop()
        return was_killed(killed)

    assert until_nothing_fires(attempt, step=5 if call == "pwrite64" else 1) > 0


# -- what does not belong together ----------------------------------------------------------------------------------


def test_a_tree_that_was_rolled_back_is_refused(series: Series) -> None:
    backup = series.backup()
    state = backup.folder / "state"
    state.mkdir()
    backup.config.write_text(backup.config.read_text() + f'state_dir = "{state}"\n')
    shutil.copy(backup.target / ".lb" / "job.db", state)
    old = backup.folder / "old"
    subprocess.run(["cp", "-a", str(backup.target), str(old)], check=True)
    assert backup.run().returncode == 0
    remove_tree(backup.target)
    old.rename(backup.target)
    before = fingerprint(backup.target)
    assert_clear(backup.run(), backup.target, state, "do not belong together")
    assert fingerprint(backup.target) == before


def test_a_catalog_that_was_rolled_back_is_refused(series: Series) -> None:
    backup = series.backup()
    catalog = backup.target / ".lb" / "job.db"
    old, new = catalog.read_bytes(), b""
    assert backup.run().returncode == 0
    new = catalog.read_bytes()
    catalog.write_bytes(old)
    before = fingerprint(backup.target / "tree")
    assert_clear(backup.run(), backup.target, catalog, "do not belong together")
    assert fingerprint(backup.target / "tree") == before
    catalog.write_bytes(new)
    backup.assert_whole()


def test_the_catalog_of_another_job_is_refused(series: Series) -> None:
    backup, other = series.backup(), series.first_backup()
    assert other.run_here().exit_code == 0
    shutil.copy(other.target / ".lb" / "job.db", backup.target / ".lb" / "job.db")
    before = fingerprint(backup.target / "tree")
    assert_clear(backup.run(), "do not belong together")
    assert fingerprint(backup.target / "tree") == before


@pytest.mark.parametrize("lost", [".lb", ".lb/epoch", ".lb/job.db"])
def test_a_target_that_lost_part_of_itself_is_refused_and_goes_on_when_it_is_back(series: Series, lost: str) -> None:
    backup = series.backup()
    aside = backup.folder / "aside"
    (backup.target / lost).rename(aside)
    before = fingerprint(backup.target / "tree")
    assert_clear(backup.run(), backup.target)
    assert fingerprint(backup.target / "tree") == before
    back = backup.target / lost
    if back.is_dir():
        remove_tree(back)
    aside.replace(back)
    backup.assert_converges()


def test_the_state_may_be_on_another_disk_and_survives_kills_there(series: Series) -> None:
    backup = series.first_backup()
    state = backup.folder / "state"
    backup.config.write_text(backup.config.read_text() + f'state_dir = "{state}"\n')
    assert backup.run().returncode == 0
    assert (state / "job.db").exists()
    assert not (backup.target / ".lb" / "job.db").exists()
    subprocess.run(["rm", "-r", str(state)], check=True)
    assert_clear(backup.run(), state, "Bring back")
