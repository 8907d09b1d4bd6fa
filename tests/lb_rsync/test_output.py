"""Reading what rsync prints."""

from __future__ import annotations

import pytest

from lb_rsync.output import Messages, Sent, parse_line, unescape

DIGEST = b"0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        (b"plain", b"plain"),
        (b"a\\#012b", b"a\nb"),
        (b"\\#134#012", b"\\#012"),
        (b"\\#134#134#012", b"\\#134#012"),
        (b"\\#12", b"\\#12"),
        (b"\\#189", b"\\#189"),
        (b"\\\\#012", b"\\\n"),
        (b"\\#377", b"\xff"),
    ],
)
def test_an_escaped_name_is_decoded_exactly(printed: bytes, name: bytes) -> None:
    assert unescape(printed) == name


def test_a_line_is_digest_size_bytes_and_name() -> None:
    line = b"lb " + DIGEST + b" 10 45 a name\\#012 with 3 4 5"
    assert parse_line(line) == Sent(path=b"a name\n with 3 4 5", digest=bytes.fromhex(DIGEST.decode()), sent_bytes=45)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"skipping directory .",
        b'skipping non-regular file "x"',
        b"lb  10 45 name",
        b"lb " + DIGEST + b" 10 45 ",
        b" lb " + DIGEST + b" 10 45 name",
    ],
)
def test_other_lines_are_no_results(line: bytes) -> None:
    assert parse_line(line) is None


def test_the_digest_of_a_file_that_could_not_be_read_whole_is_no_digest() -> None:
    """rsync prints zeros, sends the file again, and prints a second line."""
    assert parse_line(b"lb " + b"0" * 32 + b" 10 45 name") is None


def messages(*lines: bytes, names: tuple[bytes, ...] = (b"a", b"d/b")) -> Messages:
    found = Messages(b"/view", b"/target/folder", frozenset(names))
    for line in lines:
        found.add(line)
    return found


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            b'rsync: [sender] link_stat "/view/a" failed: No such file or directory (2)',
            "No such file or directory",
        ),
        (b'rsync: [sender] send_files failed to open "/view/a": Permission denied (13)', "Permission denied"),
        (b'rsync: [sender] read errors mapping "/view/a": Input/output error (5)', "Input/output error"),
        (b'file has vanished: "/view/a"', "vanished before it was read"),
        (b"ERROR: a failed verification -- update discarded.", "what arrived is not what was sent"),
    ],
)
def test_a_message_gives_its_file_a_reason(line: bytes, reason: str) -> None:
    assert messages(line).reason(b"a") == reason
    assert messages(line).reason(b"d/b") is None
    assert messages(line).target is None


def test_a_first_failure_that_rsync_tries_again_is_no_reason() -> None:
    line = b"WARNING: a failed verification -- update discarded (will try again)."
    assert messages(line).reason(b"a") is None


def test_a_name_with_quotes_and_escapes_is_found_in_a_message() -> None:
    name = b'q" failed: x (1)\n"\\#012'
    line = b'rsync: [sender] send_files failed to open "/view/q" failed: x (1)\\#012"\\#134#012": Oops (13)'
    assert messages(line, names=(name,)).reason(name) == "Oops"


@pytest.mark.parametrize(
    "line",
    [
        b'rsync: [receiver] write failed on "/target/folder/d/b": No space left on device (28)',
        b'rsync: [receiver] mkstemp "/target/folder/d/.b.x5yZ0A" failed: Disk quota exceeded (122)',
        b'rsync: [generator] recv_generator: mkdir "/target/folder/d" failed: Read-only file system (30)',
        b'rsync: [Receiver] change_dir#3 "/target/folder" failed: Permission denied (13)',
    ],
)
def test_an_error_of_the_receiver_is_the_targets(line: bytes) -> None:
    assert messages(line).target == line.decode()


@pytest.mark.parametrize(
    "line",
    [
        b'rsync: [receiver] mkstemp "/target/folder/d/.b.x5yZ0A" failed: File name too long (36)',
        b'rsync: [generator] recv_generator: mkdir "/target/folder/d": File name too long (36)',
    ],
)
def test_a_name_that_the_target_cannot_hold_is_one_files_affair(line: bytes) -> None:
    found = messages(line)
    assert found.target is None
    assert found.reason(b"d/b") == "the target refused it: File name too long"
    assert found.reason(b"a") is None


def test_an_unreadable_basis_is_no_error_of_the_target() -> None:
    line = b'rsync: [generator] failed to open "/target/tree/a", continuing: Input/output error (5)'
    assert messages(line).target is None


def test_a_source_at_the_root_of_everything_is_told_from_its_target() -> None:
    found = Messages(b"/", b"/target/folder", frozenset({b"a", b"target/folder/a"}))
    found.add(b'rsync: [sender] send_files failed to open "/a": Permission denied (13)')
    found.add(b'rsync: [receiver] write failed on "/target/folder/a": No space left on device (28)')
    assert found.reason(b"a") == "Permission denied"
    assert found.target is not None


def test_only_the_last_lines_are_kept_for_the_report() -> None:
    found = messages(*(b"line %d" % number for number in range(1000)), b"")
    assert found.last.splitlines() == [f"line {number}" for number in range(992, 1000)]
    assert messages().last == "it printed no message"
