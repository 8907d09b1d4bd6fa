"""Nothing outside the target is ever touched, whatever lies in the mirror and whatever names a source comes with."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from lbcore import _posix, hookimpl
from lbcore._posix import check_name
from lbcore.beneath import Root
from lbcore.errors import EXIT_DAMAGE
from lbcore.model import Attributes, Entry, Hint, HintFlag, Listing, Observation, Seen, View
from lbcore.plugins.types import Collection, DetectorPlugin, Known, Source
from lbcore.scope import Scope
from lbcore.testing import compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.attempts import Backup, Series, needs_root, needs_strace, remove_tree

# -- links planted in the target ------------------------------------------------------------------------------------


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return Series(tmp_path)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder like the one that a link is planted in the place of, which must stay as it is."""
    folder = tmp_path / "outside"
    for name in (
        "file",
        "other",
        "beside",
        "in",
        "inner",
        "z",
        "linked-too",
        "all-names-too",
        "er/file",
        "er/other",
        "a/b",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("belongs to somebody else\n")
    (folder / "z").chmod(0o644)
    return folder


def plant(backup: Backup, place: str, to: Path) -> None:
    """What is at ``place`` of the target becomes a link to something outside."""
    path = backup.target / place
    parent = path.parent
    mode = stat.S_IMODE(parent.stat().st_mode)
    parent.chmod(mode | 0o700)
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        remove_tree(path)
    path.symlink_to(to)
    parent.chmod(mode)


DIRECTORIES = ("deep", "deep/er", "x", "x/y", "y", "left", "doomed", "doomed/a", "becomes-file", "closed")
FILES = ("plain", "linked", "swap-1", "victim", "becomes-directory", "y/z", "gone", "tool", "sparse", "deep/er/file")


@pytest.mark.parametrize("place", [f"tree/{name}" for name in DIRECTORIES])
def test_a_link_planted_at_a_directory_of_the_mirror_leads_nowhere(series: Series, outside: Path, place: str) -> None:
    backup, before = series.backup(), read_tree(outside)
    plant(backup, place, outside)
    for _ in range(2):
        done = backup.run()
        assert done.returncode in (0, 1, 3, EXIT_DAMAGE), done
        assert "Traceback" not in done.stderr and "unexpected" not in done.stderr, done
        if done.returncode == 1:
            assert str(backup.target) in done.stderr and "is where a directory of the backup was" in done.stderr, done
        assert compare_trees(before, outside) == []


@pytest.mark.parametrize("place", [f"tree/{name}" for name in FILES])
def test_a_link_planted_at_a_file_of_the_mirror_leads_nowhere(series: Series, outside: Path, place: str) -> None:
    backup, before = series.backup(), read_tree(outside)
    plant(backup, place, outside / "file")
    done = backup.run()
    assert done.returncode in (0, 3, EXIT_DAMAGE), done
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr, done
    assert compare_trees(before, outside) == []


@pytest.mark.parametrize(
    "place", ["tree", ".lb/stage", ".lb/stage/000", ".lb/versions", ".lb/versions/000", ".lb/runs", ".lb/log", ".lb"]
)
def test_a_link_in_the_place_of_a_folder_of_the_target_is_refused(series: Series, outside: Path, place: str) -> None:
    backup = series.backup()
    # What it leads to looks the same, so that nothing but the link itself can give it away.
    same = outside / "same"
    subprocess.run(["cp", "-a", str(backup.target / place), str(same)], check=True)
    before = read_tree(outside)
    plant(backup, place, same)
    done = backup.run()
    assert done.returncode == 1, done
    assert str(backup.target) in done.stderr
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr, done
    assert compare_trees(before, outside) == []


def test_a_link_in_the_place_of_the_arrivals_is_moved_away(series: Series, outside: Path) -> None:
    backup, before = series.backup(), read_tree(outside)
    plant(backup, ".lb/stage/in", outside)
    assert backup.run().returncode == 0
    assert compare_trees(before, outside) == []


def test_the_target_itself_may_be_a_link(series: Series) -> None:
    backup = series.backup()
    real = backup.folder / "real"
    backup.target.rename(real)
    backup.target.symlink_to(real)
    backup.assert_converges()


def test_a_link_of_the_source_is_kept_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub" / "file").write_text("not ours")
    job = Job(os.fsencode(tmp_path / "job"))
    source = Path(os.fsdecode(job.source))
    (source / "way-out").symlink_to(outside)
    assert job.run().exit_code == 0
    (source / "way-out").unlink()
    (source / "way-out" / "sub").mkdir(parents=True)
    (source / "way-out" / "sub" / "file").write_text("ours")
    assert job.run().exit_code == 0
    assert job.differences() == []
    shutil.rmtree(source / "way-out")
    (source / "way-out").symlink_to(outside)
    assert job.run().exit_code == 0
    assert job.differences() == []
    assert (outside / "sub" / "file").read_text() == "not ours"


# -- names that are none --------------------------------------------------------------------------------------------

BAD_NAMES = (b"..", b".", b"", b"a/b", b"/etc/passwd", b"../outside", b"nul\0byte", b"a/", b"/")


class Liar:
    """A plugin with the detector ``liar``: it says that the source has an object of a name that cannot be."""

    def __init__(self, name: bytes, *, listing: bool, directory: bool) -> None:
        self.name = name
        self.listing = listing
        self.directory = directory
        self.complete = listing

    @hookimpl
    def lb_register_detectors(self) -> Iterable[DetectorPlugin]:
        yield DetectorPlugin(name="liar", summary="says what is not so", create=lambda options: self)

    def collect(self, source: Source, cursor: bytes | None, view: View | None = None) -> Collection:
        return Collection(hints=[Hint(id=b"x" * 16, flags=HintFlag.NAMES, time_ns=0)], cursor=b"1")

    def acknowledge(self, source: Source, cursor: bytes) -> None:
        pass

    def flush(self, source: Source, hints: Iterable[Hint]) -> Mapping[str, int]:
        return {}

    def observe(self, view: View, scope: Scope, known: Known, hints: Iterable[Hint]) -> Iterator[Seen]:
        top = os.open(view.root, os.O_RDONLY)
        root = _posix.look(top, b"")
        os.close(top)
        kind = stat.S_IFDIR | 0o755 if self.directory else stat.S_IFREG | 0o644
        attributes = Attributes(kind, 0, 0, 1, 0, 0, 0, 0)
        if self.listing:
            yield Listing(
                directory=root[0], path=b"", entries=[Entry(self.name, b"x" * 16, attributes)], fingerprint=None
            )
        else:
            yield Observation(id=b"x" * 16, attributes=attributes, names=((root[0], self.name),))


@pytest.mark.parametrize("directory", [False, True], ids=["file", "directory"])
@pytest.mark.parametrize("listing", [False, True], ids=["feed", "scan"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_refused_and_nothing_is_changed(
    tmp_path: Path, name: bytes, listing: bool, directory: bool
) -> None:
    job = Job(os.fsencode(tmp_path / "job"), Liar(name, listing=listing, directory=directory))
    (Path(os.fsdecode(job.source)) / "file").write_text("kept\n")
    assert job.run().exit_code == 0
    before = read_tree(tmp_path / "job" / "target" / "tree")
    job.configure(detector="liar")
    if not listing:
        assert job.run().exit_code == 5  # a feed that is read for the first time is made up for by a scan
    outcome = job.run(max_delete="100%")
    assert (outcome.state, outcome.exit_code) == ("failed", 1), outcome
    assert "not a file name" in outcome.message and "nothing was changed" in outcome.message
    assert compare_trees(before, job.tree) == []
    job.configure(detector="scan")
    assert job.run().exit_code == 0
    assert job.differences() == []


@pytest.mark.parametrize("name", BAD_NAMES)
def test_check_name_refuses_what_is_not_one_base_name(name: bytes) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        check_name(name)


def test_check_name_takes_every_other_name() -> None:
    for name in (b"a", b"...", b"..a", b" ", b"\n", b"\xff", b"-rf", b"~", b"*", b"x" * 255):
        check_name(name)


# -- beneath.Root ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["openat2", "walking"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``inside`` with links that lead out of it; with and without openat2(2)."""
    if request.param == "walking":

        def missing(*_: object) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(_posix, "open_beneath", missing)
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "a" / "b").mkdir(parents=True)
    (inside / "a" / "b" / "file").write_text("inside")
    outside.mkdir()
    (outside / "file").write_text("outside")
    (inside / "out").symlink_to(outside)
    (inside / "out-relative").symlink_to("../outside")
    (inside / "within").symlink_to("a")
    (inside / "a" / "link").symlink_to("b/file")
    return inside


def test_root_opens_what_is_below_it(folder: Path) -> None:
    with Root(os.fsencode(folder)) as root:
        fd = root.open(b"a/b/file", os.O_RDONLY)
        assert os.read(fd, 10) == b"inside"
        os.close(fd)
        parent, name = root.parent(b"a/b/file")
        assert (name, os.listdir(parent)) == (b"file", ["file"])
        assert root.directory(b"a/b") == parent
        made = root.open(b"a/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        assert stat.S_IMODE(os.fstat(made).st_mode) == 0o600
        os.close(made)
        top = root.open(b"", os.O_RDONLY | os.O_DIRECTORY)
        assert os.path.samestat(os.fstat(top), folder.stat())
        os.close(top)


@pytest.mark.parametrize(
    "path", [b"out/file", b"out-relative/file", b"within/b/file", b"a/link", b"out", b"a/b/../../out/file"]
)
def test_root_follows_no_link(folder: Path, path: bytes) -> None:
    with Root(os.fsencode(folder)) as root, pytest.raises((OSError, ValueError)):
        os.close(root.open(path, os.O_RDONLY))


@pytest.mark.parametrize("path", [b"../outside/file", b"a/../../outside/file", b"/etc/passwd", b".."])
def test_root_does_not_open_what_is_outside(folder: Path, path: bytes) -> None:
    with Root(os.fsencode(folder)) as root:
        with pytest.raises((OSError, ValueError)):
            os.close(root.open(path, os.O_RDONLY))
        with pytest.raises((OSError, ValueError)):
            root.parent(path)


def test_root_makes_nothing_through_a_link(folder: Path) -> None:
    with Root(os.fsencode(folder)) as root:
        with pytest.raises(OSError):
            os.close(root.open(b"out/made", os.O_WRONLY | os.O_CREAT, 0o600))
        with pytest.raises(OSError):
            os.mkdir(b"made", dir_fd=root.parent(b"out/made")[0])
    assert os.listdir(folder.parent / "outside") == ["file"]


def test_root_closes_every_descriptor(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        (folder / "a" / f"{number}").mkdir()
    with Root(os.fsencode(folder), keep=5) as root:
        for number in range(100):
            root.directory(b"a/%d" % number)
        assert len(os.listdir("/proc/self/fd")) <= before + 7
        with pytest.raises(OSError):
            root.directory(b"a/b/file")
        with pytest.raises(OSError):
            root.directory(b"out")
    assert len(os.listdir("/proc/self/fd")) == before


def deep_folder(at: Path, depth: int) -> tuple[bytes, int]:
    """A chain of folders longer than any path may be; its relative path, and the last one open."""
    name = b"d" * 250
    fd = os.open(at, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    return b"/".join([name] * depth), fd


def test_root_reaches_what_lies_deeper_than_a_path_can_say(folder: Path) -> None:
    path, fd = deep_folder(folder, 40)
    assert len(path) > 10_000
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.symlink("/", "out", dir_fd=fd)
    os.close(fd)
    with Root(os.fsencode(folder)) as root:
        os.close(root.open(path + b"/file", os.O_RDONLY))
        assert root.parent(path + b"/file")[1] == b"file"
        with pytest.raises(OSError):
            root.open(path + b"/out/etc", os.O_RDONLY)
        with pytest.raises(OSError):
            root.open(path[:5000] + b"/file", os.O_RDONLY)


def test_paths_that_are_too_long_to_say_are_backed_up_renamed_and_removed(tmp_path: Path) -> None:
    job = Job(os.fsencode(tmp_path / "job"), verify=["attributes", "checksum"])
    source = Path(os.fsdecode(job.source))
    (source / "top").mkdir()
    _, fd = deep_folder(source / "top", 30)
    os.mkdir("leaf", dir_fd=fd)
    for name, content in (("file", b"one"), ("leaf/inner", b"two"), ("leaf/sparse", b"")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        os.write(file, content)
        if "sparse" in name:
            os.ftruncate(file, 2 << 20)
        os.close(file)
    os.link("file", "leaf/second-name", src_dir_fd=fd, dst_dir_fd=fd)
    os.symlink("file", "symlink", dir_fd=fd)
    os.setxattr(f"/proc/self/fd/{fd}/file", "user.key", b"value")

    def check() -> None:
        outcome = job.run()
        assert (outcome.state, outcome.exit_code) == ("committed", 0), outcome
        assert job.differences() == []

    check()
    file = os.open("file", os.O_WRONLY, dir_fd=fd)
    os.write(file, b"changed")
    os.close(file)
    os.rename("leaf", "renamed", src_dir_fd=fd, dst_dir_fd=fd)
    os.unlink("symlink", dir_fd=fd)
    check()
    os.rename(source / "top", source / "below")
    (source / "top").mkdir()
    os.rename(source / "below", source / "top" / "below")
    check()
    subprocess.run(["rm", "-r", str(source / "top")], check=True)
    os.close(fd)
    (source / "something").touch()
    check()


# -- what others may see and run ------------------------------------------------------------------------------------


@needs_strace
@needs_root
def test_at_no_moment_is_a_file_set_uid_before_it_has_its_owner(tmp_path: Path) -> None:
    job = Job(os.fsencode(tmp_path / "job"))
    source = Path(os.fsdecode(job.source))
    for name, uid, mode in (
        ("new", 1234, 0o4755),
        ("group", 1234, 0o2755),
        ("both", 1234, 0o6711),
        ("root", 0, 0o4755),
    ):
        (source / name).write_text("#!/bin/sh\n")
        os.chown(source / name, uid, uid)
        (source / name).chmod(mode)
    series_log = tmp_path / "log"
    config = tmp_path / "lb.toml"
    target = tmp_path / "job" / "target"
    config.write_text(f'[job.job]\nsource = "{source}"\ntarget = "{target}"\n')
    run = [sys.executable, "-c", "from lbcore.cli.main import main; main()", "-c", str(config), "run"]
    calls = "trace=/chown|chmod|rename|link|mkdir|openat"

    def trace() -> list[str]:
        subprocess.run(
            ["strace", "-f", "-y", "-o", str(series_log), "-e", calls, *run], check=True, capture_output=True
        )
        return series_log.read_text(errors="surrogateescape").splitlines()

    assert_owner_comes_first(trace(), target)
    assert job.run().exit_code == 0
    for name in ("new", "both"):
        with (source / name).open("a") as file:
            file.write("exit 1\n")
        os.chown(source / name, 4321, 4321)
        (source / name).chmod(0o4750)
    (source / "plain").write_text("becomes set-uid")
    assert_owner_comes_first(trace(), target)
    os.chown(source / "plain", 77, 77)
    (source / "plain").chmod(0o6755)
    assert_owner_comes_first(trace(), target)
    assert job.differences() == []


def assert_owner_comes_first(trace: list[str], target: Path) -> None:
    """Every mode with a set-uid bit is given after the owner, and where nobody but the owner can reach the file."""
    special = [number for number, line in enumerate(trace) if re.search(r"chmod(at)?\(.*, 0[246]\d\d\d", line)]
    assert special
    for number in special:
        line = trace[number]
        thread = line.split()[0]
        following = [later for later in trace[number + 1 :] if later.startswith(thread)]
        # After the last chown of the same object comes its chmod: no chown follows before the next one's file.
        again = next((later for later in following if re.search(r"chmod|openat|rename", later)), "")
        between = following[: following.index(again)] if again else following
        assert not any("chown" in later for later in between), (line, between)
    arriving = [line for line in trace if "O_CREAT" in line and f"{target}/.lb/stage/in" in line]
    assert all(re.search(r", 0[0-7]{3}\)", line) for line in arriving)  # no set-uid bit from the start
    assert stat.S_IMODE((target / ".lb").stat().st_mode) == 0o700  # which makes the stage private
    assert all("0600" in line for line in trace if "O_CREAT" in line and f"{target}/tree" in line)
    folders = [line for line in trace if re.search(r"mkdir(at)?\(", line) and "/stage" in line]
    assert folders and all(", 0700)" in line for line in folders)


def test_what_is_not_the_mirror_is_for_the_owner_only(series: Series) -> None:
    backup = series.backup()
    old = os.umask(0)
    try:
        backup.assert_converges()
    finally:
        os.umask(old)
    assert stat.S_IMODE((backup.target / ".lb").stat().st_mode) == 0o700
    for path, folders, _ in os.walk(backup.target / ".lb"):
        for name in folders:
            assert stat.S_IMODE(os.lstat(os.path.join(path, name)).st_mode) == 0o700, (path, name)
