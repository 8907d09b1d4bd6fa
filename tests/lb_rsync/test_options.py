"""Options: what is refused, and that each reaches rsync."""

from __future__ import annotations

from typing import Any

import pytest

from lb_rsync.command import command, environment
from lb_rsync.options import RsyncOptions
from lbcore.config.options import build, check_options_class
from lbcore.errors import UsageError


def arguments(deltas: bool = True, **options: Any) -> list[bytes]:
    built = RsyncOptions(**options)
    return [*command(built, root=b"/view", folder=b"/folder", tree=b"/tree", deltas=deltas)]


def test_the_configuration_can_check_them() -> None:
    check_options_class(RsyncOptions)
    assert build(RsyncOptions, {"whole_file": False}, "lb.toml: job.home.rsync").whole_file is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"program": ""}, "program: must name rsync"),
        ({"bandwidth_limit": "fast"}, "bandwidth_limit: 'fast' is not a rate"),
        ({"bandwidth_limit": "20M --delete"}, "is not a rate"),
        ({"timeout_seconds": -1}, "timeout_seconds: must be at least 0, found -1"),
    ],
)
def test_a_value_that_rsync_would_refuse_is_refused_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=r"lb.toml: job.home.rsync: " + message if "rate" not in message else message):
        build(RsyncOptions, options, "lb.toml: job.home.rsync")


@pytest.mark.parametrize("rate", ["1000", "20M", "1.5m", "10KiB", "1GB"])
def test_rates_are_written_as_rsync_takes_them(rate: str) -> None:
    assert f"--bwlimit={rate}".encode() in arguments(bandwidth_limit=rate)


def test_whole_file_chooses_between_whole_files_and_differences() -> None:
    assert b"--whole-file" not in arguments()
    assert b"--no-whole-file" not in arguments()
    assert b"--whole-file" in arguments(whole_file=True)
    assert b"--no-whole-file" in arguments(whole_file=False)


def test_the_mirror_is_named_only_where_it_can_be_of_use() -> None:
    assert b"--copy-dest=/tree" in arguments()
    assert b"--copy-dest=/tree" not in arguments(deltas=False)
    assert b"--copy-dest=/tree" not in arguments(whole_file=True)


def test_the_program_is_what_the_option_says() -> None:
    assert arguments(program="/opt/rsync")[0] == b"/opt/rsync"


def test_paths_come_after_the_options_and_the_source_means_its_content() -> None:
    assert arguments()[-3:] == [b"--", b"/view/", b"/folder"]


def test_the_digest_is_asked_for_by_name() -> None:
    """It is rsync's first choice, too, unless both ends agree on another."""
    assert b"--checksum-choice=xxh128" in arguments()


def test_no_attributes_and_nothing_else_that_the_core_does_itself_is_asked_for() -> None:
    forbidden = {
        b"-a",
        b"--archive",
        b"-o",
        b"--owner",
        b"-g",
        b"--group",
        b"-t",
        b"--times",
        b"--inplace",
        b"-X",
    }
    assert forbidden.isdisjoint(arguments())


def test_the_environment_is_scrubbed_of_what_steers_rsync() -> None:
    inherited = {
        b"PATH": b"/bin",
        b"RSYNC_RSH": b"evil",
        b"RSYNC_OLD_ARGS": b"1",
        b"LC_MESSAGES": b"de",
        b"HOME": b"/x",
    }
    inherited |= {b"CVSIGNORE": b"*", b"LANG": b"de_DE", b"LANGUAGE": b"de", b"POSIXLY_CORRECT": b"1"}
    assert environment(inherited) == {b"PATH": b"/bin", b"LC_ALL": b"C", b"HOME": b"/nonexistent"}
