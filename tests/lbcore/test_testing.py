"""What ``lbcore.testing`` gives to authors of plugins."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbcore.errors import UsageError
from lbcore.plugins.manager import Plugins
from lbcore.testing import MakeJob, compare_trees, read_tree
from tests.support.changes import acl, punch_hole

PAGE = Path(__file__).parents[2] / "docs/plugin-testing.md"


def test_the_example_of_the_documentation_passes_without_anything_else(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "test_example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "temporary")],
        cwd=tmp_path,
        env={**os.environ, "LB_CONFIG": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_a_session_of_pytest_does_not_import_the_core() -> None:
    code = "import sys, lbcore.testing; print([name for name in sys.modules if name.startswith('lbcore')])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "['lbcore', 'lbcore.testing.trees', 'lbcore.testing']"


def test_no_variable_of_the_environment_reaches_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [name for name in os.environ if name.startswith("LB_")]


def test_the_empty_manager_has_no_plugin(lb_plugins: Plugins) -> None:
    assert not list(lb_plugins.provided())


def test_settings_are_checked_as_in_a_configuration_file(lb_job: MakeJob) -> None:
    with pytest.raises(UsageError, match=r"job\.home\.wokers: unknown key"):
        lb_job(name="home", wokers=3)


def test_each_job_has_its_own_folder_and_a_setting_can_be_taken_back(lb_job: MakeJob) -> None:
    one, two = lb_job(name="one"), lb_job(name="two", max_delete=5)
    assert one.source != two.source
    two.configure(max_delete=None)
    assert two.config.max_delete == one.config.max_delete


# -- the comparison -----------------------------------------------------------------------------------------------


def make(path: Path) -> None:
    (path / "d").mkdir(parents=True)
    (path / "file").write_bytes(b"content")
    (path / "other").write_bytes(b"content")
    (path / "other").chmod(0o644)
    (path / "d/linked").hardlink_to(path / "file")
    (path / "symlink").symlink_to("file")
    os.mkfifo(path / "fifo")
    with (path / "sparse").open("wb") as file:
        file.truncate(3_000_000)
        file.seek(1_000_000)
        file.write(b"data")
    for name in ("file", "other", "symlink", "fifo", "sparse", "d", "."):
        os.utime(path / name, ns=(0, 1_000_000_000), follow_symlinks=False)


def fill_hole(path: Path) -> None:
    with (path / "sparse").open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"\0" * 900_000)
    os.utime(path / "sparse", ns=(0, 1_000_000_000))


def replace(path: Path, name: str, how: Callable[[Path], Any]) -> None:
    (path / name).unlink()
    how(path / name)
    with contextlib.suppress(FileNotFoundError):
        os.utime(path / name, ns=(0, 1_000_000_000), follow_symlinks=False)
    os.utime(path, ns=(0, 1_000_000_000))


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(0, 1_000_000_000))


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        folder = os.open(path.parent, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


CHANGES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "content": (lambda p: write(p / "other", b"Content"), ["'other': content is"]),
    "size": (lambda p: write(p / "other", b"content\0"), ["'other': size is 8 instead of 7"]),
    "mode": (lambda p: (p / "other").chmod(0o4755), ["'other': mode is 0o4755 instead of 0o644"]),
    "time": (lambda p: os.utime(p / "fifo", ns=(0, 1_000_000_001)), ["'fifo': mtime_ns is 1000000001"]),
    "time of the root": (lambda p: os.utime(p, ns=(0, 0)), ["'': mtime_ns is 0"]),
    "target": (lambda p: replace(p, "symlink", lambda q: q.symlink_to("other")), ["'symlink': target is b'other'"]),
    "kind": (lambda p: replace(p, "fifo", bind), ["'fifo': socket instead of fifo"]),
    "xattr": (lambda p: os.setxattr(p / "d", "user.x", b"1"), ["'d': xattrs is (('user.x', b'1'),)"]),
    "hole": (fill_hole, ["'sparse': 90"]),
    "link": (
        lambda p: replace(p, "other", lambda q: q.hardlink_to(p / "file")),
        ["'d/linked': links is", "'file': links is", "'other': links is"],
    ),
    "broken link": (
        lambda p: replace(p, "file", lambda q: q.write_bytes(b"content")),
        ["'d/linked': links is ()", "'file': links is ()"],
    ),
    "gone": (lambda p: replace(p, "fifo", lambda q: None), ["'fifo': fifo is missing"]),
    "new": (lambda p: write(p / "d/new", b""), ["'d': mtime_ns is", "'d/new': file should not be there"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_difference_is_noticed_and_named(change: str, tmp_path: Path) -> None:
    action, lines = CHANGES[change]
    before, after = tmp_path / "before", tmp_path / "after"
    make(before)
    make(after)
    assert compare_trees(before, after) == []
    action(after)
    found = compare_trees(before, after)
    assert len(found) == len(lines)
    for line, beginning in zip(found, lines, strict=True):
        assert line.startswith(beginning)
    assert compare_trees(read_tree(after), after) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can give files away and make devices")
def test_owners_and_devices_are_compared(tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        os.mknod(tmp_path / name / "device", 0o20600, os.makedev(1, 3 if name == "before" else 5))
        os.chown(tmp_path / name / "device", 1 if name == "before" else 2, 7)
        for path in ("device", "."):
            os.utime(tmp_path / name / path, ns=(0, 0))
    assert compare_trees(tmp_path / "before", tmp_path / "after") == [
        "'device': uid is 2 instead of 1",
        "'device': device is (1, 5) instead of (1, 3)",
    ]
    assert compare_trees(tmp_path / "before", tmp_path / "after", ignore=["uid", "device"]) == []


def test_acls_are_compared_and_more_holes_are_no_difference(tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "zeros").write_bytes(b"\0" * 1_000_000 + b"x")
        os.setxattr(tmp_path / name / "zeros", "system.posix_acl_access", acl(user=1234, permissions=6))
    punch_hole(os.fsencode(tmp_path / "after/zeros"), 0, 999_424)
    for name in ("before", "after"):
        for path in ("zeros", "."):
            os.utime(tmp_path / name / path, ns=(0, 0))
    assert compare_trees(tmp_path / "before", tmp_path / "after") == []
    os.setxattr(tmp_path / "after/zeros", "system.posix_acl_access", acl(user=1234, permissions=4))
    (line,) = compare_trees(tmp_path / "before", tmp_path / "after")
    assert line.startswith("'zeros': xattrs is")
