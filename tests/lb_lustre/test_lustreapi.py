"""Calling liblustreapi: the stand-in of the simulator, at the real one's ABI; libraries that lack something."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lb_lustre import fid, layout
from lb_lustre._lustreapi import ChangelogReader, Library
from lb_lustre.errors import LustreUnavailableError
from lb_lustre.record import Record, Type, decode
from tests.lb_lustre.conftest import Simulated

RELEASED = 0x1 | 0x4 | 0x8


def compiled(folder: Path, source: str) -> str:
    """A shared object of these C functions."""
    if shutil.which("cc") is None:
        pytest.skip("needs cc: a library is compiled")
    (folder / "x.c").write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "x.so", folder / "x.c"], check=True)
    return str(folder / "x.so")


def test_without_a_library_everything_can_be_imported_and_its_use_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LB_LUSTREAPI", "liblustreapi-that-is-nowhere.so.1")
    script = "import lb_lustre.plugin, lb_lustre._lustreapi, lb_lustre.llapi"
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(LustreUnavailableError, match=r"nowhere\.so\.1 is not on this node.* install the Lustre client"):
        Library()


def test_a_function_that_is_missing_is_named_when_it_is_used_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "int llapi_changelog_clear(const char *m, const char *u, long long i) { return m[0] == 'x' ? 0 : -2; }"
    monkeypatch.setenv("LB_LUSTREAPI", compiled(tmp_path, source))
    library = Library()
    library.clear("x-MDT0000", "cl1", 5)
    with pytest.raises(LustreUnavailableError, match=r"x\.so has no function llapi_get_data_version"):
        library.data_version(0, False)
    with pytest.raises(LustreUnavailableError, match="llapi_changelog_recv"):
        ChangelogReader(library, "x-MDT0000", 1)


def test_an_error_is_an_errno_with_the_name_of_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LB_LUSTREAPI", compiled(tmp_path, "int llapi_changelog_clear() { return -5; }"))
    with pytest.raises(OSError, match="llapi_changelog_clear") as caught:
        Library().clear("x-MDT0000", "cl1", 5)
    assert caught.value.errno == errno.EIO


SCRIPTED = """
#include <stdlib.h>
#include <string.h>
/* COUNT records of 64 bytes, each with its index; then what END says, once. */
static long long next, frees, finis, said;
int llapi_changelog_start(void **p, int flags, const char *mdt, long long start)
{ *p = &next; next = start; return flags == 12 ? 0 : -22; }
int llapi_changelog_set_xflags(void *p, int flags) { return flags == 4 ? 0 : -22; }
int llapi_changelog_recv(void *p, void **record)
{
    if (next > COUNT)
        return said++ ? 1 : END;
    *record = calloc(1, 64);
    memcpy((char *)*record + 8, &next, 8);
    next++;
    return 0;
}
int llapi_changelog_free(void **record) { frees++; free(*record); *record = 0; return 0; }
int llapi_changelog_fini(void **p) { finis++; *p = 0; return 0; }
int llapi_get_data_version(int fd, unsigned long long *v, unsigned long long f) { *v = fd ? finis : frees; return 0; }
"""


def scripted(folder: Path, monkeypatch: pytest.MonkeyPatch, *, count: int, end: int) -> Library:
    source = SCRIPTED.replace("COUNT", str(count)).replace("END", str(end))
    monkeypatch.setenv("LB_LUSTREAPI", compiled(folder, source))
    return Library()


def test_records_come_in_batches_each_is_freed_and_the_reader_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = scripted(tmp_path, monkeypatch, count=10_000, end=1)
    with ChangelogReader(library, "x", 5) as reader:
        batches = []
        while data := reader.read():
            batches.append(data)
        assert reader.read() == b"", "the end stays the end"
    assert len(batches) == 3
    assert max(map(len, batches)) <= 256 << 10
    assert [one.index for one in decode(b"".join(batches))] == list(range(5, 10_001))
    assert (library.data_version(0, False), library.data_version(1, False)) == (9_996, 1)
    with pytest.raises(ValueError, match="closed"):
        reader.read()
    del reader
    assert library.data_version(1, False) == 1, "closed once"


def test_what_came_before_an_error_is_given_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = scripted(tmp_path, monkeypatch, count=7, end=-errno.ENOTCONN)
    with ChangelogReader(library, "x", 1) as reader:
        assert len(reader.read()) == 7 * 64
        for _ in range(2):
            with pytest.raises(OSError, match="llapi_changelog_recv") as caught:
                reader.read()
            assert caught.value.errno == errno.ENOTCONN


WAITING = """
import os, sys, threading
from lb_lustre._lustreapi import Library
reads, writes = os.pipe()
library, got = Library(), []
waits = threading.Thread(target=lambda: got.append(library.data_version(reads, True)))
waits.start()
os.write(writes, b"x")
waits.join()
assert got == [1], "the flag that flushes is 1"
"""


def test_other_threads_go_on_while_the_library_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits for what another thread does: without that, this never ends."""
    source = """
    #include <unistd.h>
    int llapi_get_data_version(int fd, unsigned long long *v, unsigned long long f)
    { char c; *v = f; return read(fd, &c, 1) == 1 ? 0 : -32; }
    """
    monkeypatch.setenv("LB_LUSTREAPI", compiled(tmp_path, source))
    subprocess.run([sys.executable, "-c", WAITING], check=True, timeout=60)


def test_data_version_hsm_state_and_server_of_objects(lustre: Simulated) -> None:
    library = Library()
    one, two = lustre.root / "one", lustre.root / "two"
    one.write_bytes(b"some")
    two.write_bytes(b"some")

    def version(path: Path, *, flush: bool = False) -> int:
        fd = os.open(path, os.O_RDONLY)
        try:
            return library.data_version(fd, flush)
        finally:
            os.close(fd)

    first = version(one)
    assert first == version(two) == version(one, flush=True)
    assert (lustre.ask("flushes", path="one"), lustre.ask("flushes", path="two")) == (1, 0)
    lustre.ask("snapshot_create", name="one")
    snapshot = lustre.root.parent / lustre.ask("snapshot_mount", name="one")
    one.write_bytes(b"else")
    assert version(one) != first == version(snapshot / "one")

    assert library.hsm_state(one) == (0, 0)
    lustre.ask("set_hsm", path="one", states=RELEASED, archive=3)
    assert library.hsm_state(one) == (RELEASED, 3)
    with pytest.raises(FileNotFoundError):
        library.hsm_state(lustre.root / "missing")

    for number in range(4):
        (lustre.root / f"d{number}").mkdir()
    top = os.open(lustre.root, os.O_RDONLY)
    found = {library.mdt_index(top, fid.parse(lustre.ask("fid_of", path=f"d{number}"))) for number in range(4)}
    assert found == {0, 1}
    assert library.mdt_index(top, fid.ROOT) == 0
    os.close(top)


def test_a_record_is_what_the_device_gives_without_what_nobody_needs(lustre: Simulated) -> None:
    lustre.ask("register", mdt=0, mask=[kind.name for kind in Type])
    (lustre.root / "file").write_bytes(b"x")
    os.rename(lustre.root / "file", lustre.root / "other")
    os.setxattr(lustre.root / "other", "user.note", b"yes")
    device = lustre.devices / "changelog-simfs-MDT0000"
    fd = os.open(device, os.O_RDONLY)
    expected = list(decode(os.read(fd, 1 << 16)))
    os.close(fd)
    with ChangelogReader(Library(), "simfs-MDT0000", 1) as reader:
        found = list(decode(reader.read()))

    def essential(record: Record) -> tuple[object, ...]:
        names = ("index", "type", "time_ns", "target", "parent", "name", "type_flags", "source", "source_parent",
                 "source_name", "jobid", "open_flags")  # fmt: skip
        return tuple(getattr(record, name) for name in names)

    assert [essential(record) for record in found] == [essential(record) for record in expected]
    assert {Type.OPEN, Type.RENME, Type.XATTR} <= {record.type for record in found}
    assert all(record.owner is None and record.nid is None and record.xattr is None for record in found)
    with pytest.raises(FileNotFoundError, match="llapi_changelog_start"):
        ChangelogReader(Library(), "simfs-MDT0007", 1)


def test_what_is_imported_is_there_as_it_was_said_and_is_not_there_when_that_fails(lustre: Simulated) -> None:
    library, one = Library(), lustre.root / "one"
    wanted = {"archive": 3, "mode": 0o100640, "uid": 5, "gid": 6, "size": 1 << 33, "mtime_ns": 1600000000 * 10**9}
    made = library.hsm_import(os.fsencode(one), **wanted, stripe_size=1 << 20, stripe_count=-1, pattern=1, pool=b"fast")
    assert fid.text(made) == lustre.ask("fid_of", path="one")
    there = one.stat()
    assert (there.st_mode, there.st_uid, there.st_gid, there.st_size) == (0o100640, 5, 6, 1 << 33)
    assert there.st_mtime_ns == 1600000000 * 10**9
    assert library.hsm_state(one) == (RELEASED, 3)
    laid_out = layout.parse(os.getxattr(one, layout.XATTR))
    assert isinstance(laid_out, layout.Plain)
    assert (laid_out.stripe_size, laid_out.stripe_count, laid_out.pool) == (1 << 20, 0xFFFF, b"fast")
    with pytest.raises(OSError, match="llapi_hsm_import") as caught:
        library.hsm_import(os.fsencode(lustre.root / "two"), **wanted, pool=b"gone")
    assert caught.value.errno == errno.EINVAL
    assert os.listdir(lustre.root) == ["one"]
