"""The transfer as the core uses it: names, content, digests, one process. Real rsync throughout."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

from lb_rsync.options import RsyncOptions
from lb_rsync.transfer import RsyncTransfer
from lbcore.errors import LbError, SourceError, TargetError, UsageError
from lbcore.model import Delivered, NotDelivered, View
from lbcore.plugins.manager import Plugins

if TYPE_CHECKING:
    from tests.lb_rsync.conftest import Place

HOSTILE_NAMES = {
    "a hash sign, which begins a comment": b"#hash",
    "a semicolon, which begins a comment": b";semi",
    "a newline": b"two\nlines",
    "a carriage return at the end": b"return\r",
    "bytes that are not UTF-8": b"\xff\xfe\x80",
    "UTF-8": "fünf".encode(),
    "a leading dash": b"-rf",
    "spaces at both ends": b" space ",
    "quotes": b"q'\"`",
    "a quote at the end": b'say "x"',
    "backslashes": b"back\\slash\\",
    "what looks like an escape of rsync": b"\\#012",
    "what looks like an escaped escape": b"\\#134#012",
    "what is nearly an escape": b"\\#12",
    "an escape with digits that are not octal": b"\\#189\\#999",
    "control characters": bytes(range(1, 32)) + b"\x7f",
    "wildcards": b"[ab]*?{c,d}",
    "a colon, as in host:path": b"host:path",
    "two colons, as in host::module": b"rsync://host/".replace(b"/", b":"),
    "255 bytes": b"z" * 255,
    "255 bytes that are escaped": b"\n" * 255,
    "a name like rsync's temporary ones": b".x.abcdef",
    "a tilde": b"~root",
    "a dollar sign": b"$HOME",
    "a filter file": b".rsync-filter",
}


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES.keys())
def test_a_name_is_delivered_exactly_when_it_has(name: bytes, place: Place) -> None:
    place.write(name, b"content of " + name)
    place.write(b"folder " + name[:200] + b"/" + name, b"deeper")
    place.assert_delivered(place.deliver(name, b"folder " + name[:200] + b"/" + name))


def test_all_hostile_names_go_in_one_batch_and_none_is_taken_for_another(place: Place) -> None:
    for name in HOSTILE_NAMES.values():
        place.write(name, b"content of " + name)
    place.assert_delivered(place.deliver(*HOSTILE_NAMES.values()))


def test_a_name_of_many_escapes_is_decoded_wherever_the_seams_of_buffers_fall(place: Place) -> None:
    for shift in range(7):
        path = b"s" * shift + b"/" if shift else b""
        path += b"/".join([b"\\#123" * 40] * 9)
        place.write(path, b"%d" % shift)
        place.assert_delivered(place.deliver(path))


@pytest.mark.parametrize("odd", [b"quo'te\"s $x `y`", b"*?[x]", b"back\\slash", b"new\nline", b"co:lon"])
def test_the_folders_themselves_may_have_any_name(odd: bytes, place: Place) -> None:
    for name in ("source", "tree", "folder"):
        old = getattr(place, name)
        setattr(place, name, old + odd)
        os.rename(old, old + odd)
    place.write(b"f", b"x" * 5000)
    place.write(b"f", b"x" * 4000, below=place.tree)
    place.write(b"gone", b"")
    items = place.items(b"f", b"gone")
    os.unlink(place.source + b"/gone")
    one, two = place.start(items, whole_file=False)
    assert isinstance(one, Delivered)
    assert place.content(b"f") == b"x" * 5000
    assert isinstance(two, NotDelivered)
    assert "vanished" in two.reason


@pytest.mark.parametrize("whole_file", [None, True, False])
def test_other_content_of_equal_size_and_mtime_is_delivered(whole_file: bool | None, place: Place) -> None:
    source = place.write(b"f", b"new" * 1000)
    mirror = place.write(b"f", b"old" * 1000, below=place.tree)
    times = os.stat(source)
    os.utime(mirror, ns=(times.st_atime_ns, times.st_mtime_ns))
    place.assert_delivered(place.deliver(b"f", whole_file=whole_file))


@pytest.mark.parametrize("whole_file", [None, True, False])
def test_equal_content_is_delivered_again_and_never_left_out(whole_file: bool | None, place: Place) -> None:
    source = place.write(b"f", b"same" * 1000)
    mirror = place.write(b"f", b"same" * 1000, below=place.tree)
    times = os.stat(source)
    os.utime(mirror, ns=(times.st_atime_ns, times.st_mtime_ns))
    place.assert_delivered(place.deliver(b"f", whole_file=whole_file))


def test_the_digest_is_that_of_the_content_for_new_changed_empty_and_large_files(place: Place) -> None:
    large = os.urandom(5_000_000)
    place.write(b"new", b"new content")
    place.write(b"empty", b"")
    place.write(b"emptied", b"")
    place.write(b"emptied", b"something", below=place.tree)
    place.write(b"large", large)
    place.write(b"changed", large)
    place.write(b"changed", large[:2_000_000] + b"!" + large[2_000_001:], below=place.tree)
    names = (b"new", b"empty", b"emptied", b"large", b"changed")
    results = place.deliver(*names, whole_file=False)
    place.assert_delivered(results)


def test_only_differences_to_the_mirror_are_sent_without_whole_file(place: Place) -> None:
    content = os.urandom(3_000_000)
    place.write(b"f", content + b"appended")
    place.write(b"f", content, below=place.tree)
    result = place.deliver(b"f", whole_file=False)[b"f"]
    assert isinstance(result, Delivered)
    assert result.sent_bytes < 100_000


@pytest.mark.parametrize("whole_file", [None, True])
def test_local_files_are_sent_whole_unless_asked_otherwise(whole_file: bool | None, place: Place) -> None:
    content = os.urandom(300_000)
    place.write(b"f", content + b"appended")
    place.write(b"f", content, below=place.tree)
    result = place.deliver(b"f", whole_file=whole_file)[b"f"]
    assert isinstance(result, Delivered)
    assert result.sent_bytes > 300_000


@pytest.mark.parametrize("whole_file", [None, True, False])
def test_a_setuid_file_arrives_without_the_bit_whatever_the_mirror_has(whole_file: bool | None, place: Place) -> None:
    for below in (place.source, place.tree):
        os.chmod(place.write(b"d/f", b"program" * 100 + below, below=below), 0o6755)
    os.chmod(place.source + b"/d", 0o2555)
    results = place.deliver(b"d/f", whole_file=whole_file)
    place.assert_delivered(results)
    assert stat.S_IMODE(os.lstat(place.folder + b"/d").st_mode) == 0o700


@pytest.mark.parametrize("basis", ["no basis", "dense basis"])
def test_holes_are_kept(basis: str, place: Place) -> None:
    path = place.write(b"f", b"begin")
    with open(path, "r+b") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    place.write(b"all hole", b"")
    os.truncate(place.source + b"/all hole", 8 << 20)
    if basis == "dense basis":
        place.write(b"f", bytes(4 << 20), below=place.tree)
    results = place.deliver(b"f", b"all hole", whole_file=False)
    place.assert_delivered(results)
    for name in (b"f", b"all hole"):
        assert os.stat(place.folder + b"/" + name).st_blocks * 512 < 1 << 20


def test_neither_times_nor_attributes_are_brought(place: Place) -> None:
    path = place.write(b"f", b"x")
    os.utime(path, ns=(0, 0))
    try:
        os.setxattr(path, b"user.mark", b"1")
    except OSError:
        pytest.skip("this filesystem has no extended attributes")
    place.assert_delivered(place.deliver(b"f"))
    assert os.stat(place.folder + b"/f").st_mtime > 1000
    assert os.listxattr(place.folder + b"/f") == []


def test_the_mirror_is_not_written(place: Place) -> None:
    place.write(b"d/f", b"new" * 1000)
    mirror = place.write(b"d/f", b"old" * 900, below=place.tree)
    before = os.lstat(mirror)
    place.deliver(b"d/f", whole_file=False)
    after = os.lstat(mirror)
    assert (before.st_ino, before.st_ctime_ns, before.st_size) == (
        after.st_ino,
        after.st_ctime_ns,
        after.st_size,
    )


def test_a_link_in_the_mirror_is_no_basis(place: Place) -> None:
    secret = place.write(b"secret", b"s" * 100_000, below=place.outside)
    place.write(b"f", b"s" * 100_000)
    os.symlink(secret, place.tree + b"/f")
    result = place.deliver(b"f", whole_file=False)[b"f"]
    assert isinstance(result, Delivered)
    assert result.sent_bytes > 100_000


def test_ten_thousand_files_are_one_rsync(place: Place) -> None:
    names = [b"d%d/f%d" % (number % 100, number) for number in range(10_000)]
    for name in names:
        place.write(name, name)
    log = place.base / "started"
    program = place.program("counting", f'echo started >> "{log}"', 'exec rsync "$@"')
    place.assert_delivered(place.deliver(*names, program=program))
    assert log.read_text() == "started\n"


def test_results_come_while_rsync_still_runs(place: Place) -> None:
    place.write(b"0 small", b"small")
    place.write(b"1 big", os.urandom(4_000_000))
    items = place.items(b"0 small", b"1 big")
    began = time.monotonic()
    results = place.start(items, bandwidth_limit="2M")
    assert isinstance(next(results), Delivered)
    early = time.monotonic() - began
    assert isinstance(next(results), Delivered)
    assert time.monotonic() - began > early + 0.5


def test_an_early_close_kills_rsync_and_its_helpers(place: Place) -> None:
    place.write(b"0 small", b"small")
    place.write(b"1 big", os.urandom(4_000_000))
    pid = place.base / "pid"
    program = place.program("noting", f'echo $$ > "{pid}"', 'exec rsync "$@"')
    results = place.start(place.items(b"0 small", b"1 big"), program=program, bandwidth_limit="100K")
    assert isinstance(next(results), Delivered)
    group = int(pid.read_text())
    os.killpg(group, 0)
    results.close()  # type: ignore[attr-defined]  # a generator, as the core closes it
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)  # between two looks
    else:
        pytest.fail("a process of rsync is still there")
    assert not os.path.exists(place.folder + b"/1 big")


def test_rsync_ends_soon_when_lb_is_killed_at_once(place: Place) -> None:
    names = [b"%02d" % number for number in range(40)]
    for name in names:
        place.write(name, os.urandom(500_000))
    pid = place.base / "pid"
    program = place.program("noting", f'echo $$ > "{pid}"', 'exec rsync "$@"')
    items = place.items(*names)
    child = os.fork()
    if child == 0:
        next(place.start(items, program=program, bandwidth_limit="1M"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    began = time.monotonic()
    while time.monotonic() < began + 20:
        try:
            os.killpg(int(pid.read_text()), 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)  # between two looks
    assert time.monotonic() < began + 10


def test_bandwidth_limit_slows_the_transfer(place: Place) -> None:
    place.write(b"f", os.urandom(2_000_000))
    began = time.monotonic()
    place.assert_delivered(place.deliver(b"f", bandwidth_limit="1000"))
    assert time.monotonic() - began > 1


def test_a_run_that_moves_no_data_is_ended(place: Place) -> None:
    place.write(b"0 small", b"small")
    place.write(b"1 big", os.urandom(4_000_000))
    pid = place.base / "pid"
    program = place.program("noting", f'echo $$ > "{pid}"', 'exec rsync "$@"')
    options: dict[str, Any] = {"program": program, "bandwidth_limit": "1M", "timeout_seconds": 1}
    results = place.start(place.items(b"0 small", b"1 big"), **options)
    assert isinstance(next(results), Delivered)
    os.killpg(int(pid.read_text()), signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"rsync moved no data for 1 seconds \(timeout_seconds\)"):
        list(results)
    assert time.monotonic() - began < 8


def test_a_slow_run_that_moves_some_data_is_not_ended(place: Place) -> None:
    place.write(b"f", os.urandom(3_000_000))
    place.assert_delivered(place.deliver(b"f", bandwidth_limit="1M", timeout_seconds=1))


def test_no_items_start_no_rsync(place: Place) -> None:
    assert place.deliver(program="/nonexistent/rsync") == {}


def test_a_missing_program_is_an_error_that_names_what_to_install(place: Place) -> None:
    place.write(b"f", b"x")
    with pytest.raises(UsageError, match="apt install rsync"):
        place.deliver(b"f", program="/nonexistent/rsync")


def test_a_program_that_is_no_rsync_is_an_error_with_its_last_words(place: Place) -> None:
    place.write(b"f", b"x")
    program = place.program("old", 'echo "rsync: --stderr=client: unknown option" >&2', "exit 1")
    with pytest.raises(LbError, match=r"status 1; is it rsync 3.2.7 or newer\?\n.*unknown option"):
        place.deliver(b"f", program=program)


def test_a_protocol_error_is_an_error_of_the_run(place: Place) -> None:
    place.write(b"f", b"x")
    program = place.program("broken", "echo 'rsync: protocol version mismatch' >&2", "exit 12")
    with pytest.raises(LbError, match=r"ended with status 12\nrsync: protocol"):
        place.deliver(b"f", program=program)


def test_a_killed_rsync_is_an_error_of_the_run(place: Place) -> None:
    place.write(b"f", b"x")
    program = place.program("dying", f"kill -{signal.SIGKILL} $$")
    with pytest.raises(LbError, match="killed by signal 9"):
        place.deliver(b"f", program=program)


def test_a_name_without_its_line_has_failed(place: Place) -> None:
    place.write(b"f", b"x")
    program = place.program("silent", "cat >/dev/null")
    result = place.deliver(b"f", program=program)[b"f"]
    assert result == NotDelivered(obj=1, reason="rsync gave no result for it")


def test_a_line_without_its_file_has_failed(place: Place) -> None:
    place.write(b"f", b"x")
    program = place.program("lying", "cat >/dev/null", f"echo 'lb {'1' * 32} 1 45 f'")
    result = place.deliver(b"f", program=program)[b"f"]
    assert result == NotDelivered(obj=1, reason="rsync gave no result for it")


def test_a_line_whose_file_is_too_short_has_failed(place: Place) -> None:
    place.write(b"f", b"long")
    program = place.program("short", "cat >/dev/null", *_short(place))
    result = place.deliver(b"f", program=program)[b"f"]
    assert result == NotDelivered(obj=1, reason="2 bytes arrived of 4")


def _short(place: Place) -> list[str]:
    return [f'printf lo > "{os.fsdecode(place.folder)}/f"', f"echo 'lb {'1' * 32} 4 45 f'"]


def test_environment_and_home_do_not_change_what_rsync_does(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.base / ".popt").write_text("rsync alias --perms --dry-run\nrsync alias --sparse --dry-run\n")
    monkeypatch.setenv("HOME", str(place.base))
    for name, value in {
        "RSYNC_CHECKSUM_LIST": "md5",
        "RSYNC_ICONV": "utf8,latin1",
        "RSYNC_PARTIAL_DIR": "partial",
        "RSYNC_MAX_ALLOC": "1",
        "LANGUAGE": "de",
        "LC_MESSAGES": "de_DE.UTF-8",
        "LC_ALL": "C.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)
    place.write("fünf".encode(), b"x" * 1000)
    place.assert_delivered(place.deliver("fünf".encode()))


def test_a_path_longer_than_rsync_takes_is_declined(place: Place) -> None:
    transfer = RsyncTransfer(RsyncOptions())
    place.write(b"f", b"x")
    item = place.item(b"f")

    def accepts(path: bytes) -> bool:
        return transfer.accepts(type(item)(obj=1, path=path, id=item.id, attributes=item.attributes, basis=None))

    assert accepts(b"f")
    assert accepts(b"d" * 200 + b"/f")
    assert not accepts(b"/".join([b"d" * 250] * 17))
    assert not accepts(b"/".join([b"d"] * 1500))


@pytest.mark.parametrize("step", [b"d" * 250, b"d" * 8])
def test_the_longest_accepted_path_is_delivered(step: bytes, place: Place) -> None:
    path = b"/".join([step] * (2048 // (len(step) + 1)))
    place.write(path, b"deep")
    place.write(path, b"deeq", below=place.tree)
    assert RsyncTransfer(RsyncOptions()).accepts(place.item(path))
    place.assert_delivered(place.deliver(path, whole_file=False))


def test_a_missing_view_is_an_error_of_the_source(place: Place) -> None:
    place.write(b"f", b"x")
    items = place.items(b"f")
    os.rename(place.source, place.source + b".away")
    with pytest.raises(SourceError, match="source: No such file"):
        list(place.start(items))


def test_a_missing_folder_is_an_error_of_the_target(place: Place) -> None:
    place.write(b"f", b"x")
    os.rmdir(place.folder)
    with pytest.raises(TargetError, match="folder: No such file"):
        place.deliver(b"f")


def test_the_transfer_can_be_pickled_and_is_registered(place: Place) -> None:
    plugins = Plugins()
    registration = plugins.transfers()["rsync"]
    transfer = registration.create(registration.config(whole_file=False))
    again = pickle.loads(pickle.dumps(transfer))  # as an executor of other processes does; lb itself never does
    assert again == transfer
    place.write(b"f", b"x")
    (result,) = again.deliver(View(root=place.source, stable=True), place.items(b"f"), place.folder, place.tree)
    assert isinstance(result, Delivered)
