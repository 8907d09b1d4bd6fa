"""What a source can do to a transfer: files that change, vanish, cannot be read, and links that lead out."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lbcore.model import Delivered, Delivery, NotDelivered
from tests.support.users import as_ordinary_user

if TYPE_CHECKING:
    from tests.lb_rsync.conftest import Place

NOBODY = 65534
CHANGED = NotDelivered(obj=3, reason="changed while it was read", changed=True)


def slowly(place: Place, path: bytes, beside: bytes = b"") -> Iterator[Delivery]:
    """Deliver three files, ``path`` last; after the first result rsync is busy with the second for long."""
    first, slow = beside + b"0 first", beside + b"1 slow"
    place.write(first, b"first")
    place.write(slow, os.urandom(3_000_000))
    results = place.start(place.items(first, slow, path), bandwidth_limit="2M", timeout_seconds=2)
    assert isinstance(next(results), Delivered)
    return results


def last(results: Iterator[Delivery]) -> Delivery:
    """The result for the third file; the second is not harmed by what happens to it."""
    found = {result.obj: result for result in results}
    assert isinstance(found[2], Delivered)
    return found[3]


def wait_for(path: bytes) -> None:
    until = time.monotonic() + 10
    while not os.path.lexists(path):
        assert time.monotonic() < until
        time.sleep(0.01)  # between two looks


def test_a_file_that_changed_after_it_was_observed_is_not_delivered(place: Place) -> None:
    for name in (b"longer", b"same size", b"touched", b"quiet"):
        place.write(name, b"before")
    items = place.items(b"longer", b"same size", b"touched", b"quiet")
    time.sleep(0.02)  # so that the clock of the filesystem has gone on
    place.write(b"longer", b"before and after")
    place.write(b"same size", b"after!")
    os.utime(place.source + b"/same size", ns=(0, items[1].attributes.mtime_ns))
    os.chmod(place.source + b"/touched", 0o600)
    results = {result.obj: result for result in place.start(items)}
    for obj in (1, 2, 3):
        assert results[obj] == NotDelivered(obj=obj, reason="changed while it was read", changed=True)
    assert isinstance(results[4], Delivered)


def test_a_file_that_took_the_name_of_the_observed_one_is_not_delivered(place: Place) -> None:
    place.write(b"f", b"x")
    item = place.item(b"f")
    time.sleep(0.02)  # so that the clock of the filesystem has gone on
    other = place.write(b"g", b"y")
    os.utime(other, ns=(0, item.attributes.mtime_ns))
    os.rename(other, place.source + b"/f")
    (result,) = place.start([item])
    assert result == NotDelivered(obj=1, reason="changed while it was read", changed=True)


def test_two_objects_with_one_name_are_not_confused(place: Place) -> None:
    place.write(b"f", b"x")
    first, second = place.start([place.item(b"f", 1), place.item(b"f", 2)])
    assert first == NotDelivered(obj=2, reason="another file has its name now", changed=True)
    assert isinstance(second, Delivered)
    assert second.obj == 1


def test_a_file_that_grows_while_it_is_read_is_not_delivered(place: Place) -> None:
    path = place.write(b"2 last", os.urandom(3_000_000))
    results = slowly(place, b"2 last")
    with open(path, "ab") as file:
        file.write(b"more")
    assert last(results) == CHANGED


def test_a_file_that_is_cut_while_it_is_read_is_not_delivered(place: Place) -> None:
    place.write(b"2 last", b"after the cut one")
    results = slowly(place, b"2 last")
    os.truncate(place.source + b"/1 slow", 1000)
    found = {result.obj: result for result in results}
    assert found[2] == NotDelivered(obj=2, reason="changed while it was read", changed=True)
    assert isinstance(found[3], Delivered)


@pytest.mark.parametrize("stable", [False, True])
def test_a_file_that_vanished_is_named_and_the_others_are_delivered(stable: bool, place: Place) -> None:
    for name in (b"a", b"b", b"d/c"):
        place.write(name, b"x")
    items = place.items(b"a", b"b", b"d/c")
    os.unlink(place.source + b"/a")
    shutil.rmtree(place.source + b"/d")
    results = {result.obj: result for result in place.start(items, stable=stable)}
    for obj in (1, 3):
        assert results[obj] == NotDelivered(obj=obj, reason="vanished before it was read")
    assert isinstance(results[2], Delivered)


def test_a_file_that_vanishes_while_rsync_runs_is_named(place: Place) -> None:
    path = place.write(b"2 last", b"x")
    results = slowly(place, b"2 last")
    os.unlink(path)
    assert last(results) == NotDelivered(obj=3, reason="vanished before it was read")


@pytest.mark.parametrize("what", ["pipe", "directory", "link"])
def test_what_is_no_file_any_more_is_not_delivered(what: str, place: Place) -> None:
    path = place.write(b"f", b"x")
    place.write(b"g", b"x")
    items = place.items(b"f", b"g")
    os.unlink(path)
    if what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        os.mkdir(path)
    else:
        os.symlink(place.write(b"secret", b"secret", below=place.outside), path)
    results = {result.obj: result for result in place.start(items)}
    assert results[1] == NotDelivered(obj=1, reason="changed while it was read", changed=True)
    assert isinstance(results[2], Delivered)


def test_a_pipe_that_takes_a_files_place_while_rsync_runs_does_not_stop_the_run(place: Place) -> None:
    path = place.write(b"2 last", b"x")
    results = slowly(place, b"2 last")
    os.unlink(path)
    os.mkfifo(path)
    assert last(results) == CHANGED


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("target", ["outside", "inside"])
def test_a_link_in_the_place_of_a_directory_is_not_followed(target: str, stable: bool, place: Place) -> None:
    """rsync alone follows it."""
    place.write(b"a/b/f", b"good")
    place.write(b"a/g", b"good")
    items = place.items(b"a/b/f", b"a/g")
    below = place.outside if target == "outside" else place.source + b"/elsewhere"
    place.write(b"f", b"evil", below=below)
    os.rename(place.source + b"/a/b", place.source + b"/a/away")
    os.symlink(below, place.source + b"/a/b")
    results = {result.obj: result for result in place.start(items, stable=stable)}
    assert results[1] == NotDelivered(obj=1, reason="changed while it was read", changed=True)
    assert isinstance(results[2], Delivered)
    assert not os.path.lexists(place.folder + b"/a/b")


def test_a_link_that_is_swapped_in_while_rsync_runs_is_not_followed(place: Place) -> None:
    place.write(b"2/last", b"good")
    place.write(b"last", b"evil", below=place.outside)
    results = slowly(place, b"2/last")
    os.rename(place.source + b"/2", place.source + b"/away")
    os.symlink(place.outside, place.source + b"/2")
    assert last(results) == CHANGED


@pytest.mark.parametrize("beside", [b"", b"2/"], ids=["alone", "after others of its directory"])
@pytest.mark.parametrize("depth", [b"2/last", b"2/3/4/last"])
def test_a_link_that_was_there_only_while_rsync_read_is_found_out(depth: bytes, beside: bytes, place: Place) -> None:
    place.write(depth, b"good")
    place.write(depth.removeprefix(b"2/"), b"evil", below=place.outside)
    results = slowly(place, depth, beside)
    os.rename(place.source + b"/2", place.source + b"/away")
    os.symlink(place.outside, place.source + b"/2")
    wait_for(place.folder + b"/" + depth)
    os.unlink(place.source + b"/2")
    os.rename(place.source + b"/away", place.source + b"/2")
    assert last(results) == CHANGED


def test_a_file_in_a_busy_directory_is_delivered(place: Place) -> None:
    place.write(b"2/last", b"good")
    results = slowly(place, b"2/last")
    place.write(b"2/other", b"made meanwhile")
    assert isinstance(last(results), Delivered)


@pytest.mark.parametrize("path", [b"../outside/secret", b"/etc/hostname", b"a/../../outside/secret", b"", b"a//f"])
def test_a_path_that_is_not_below_the_source_is_never_given_to_rsync(path: bytes, place: Place) -> None:
    place.write(b"secret", b"secret", below=place.outside)
    place.write(b"a/f", b"x")
    item = place.item(b"a/f")._replace(path=path)
    (result,) = place.start([item], program="/nonexistent/rsync")
    assert result == NotDelivered(obj=1, reason="not a path below the source")


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that any user may reach, which pytest's own are not."""
    base = Path(tempfile.mkdtemp(prefix="lb-rsync-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(place: Place, open_place: Path) -> None:
    place = type(place)(open_place)
    for name in (b"a", b"locked", b'say "it\'s"\nlocked', b"z"):
        place.write(name, b"x")
        os.chmod(place.source + b"/" + name, 0o000 if b"locked" in name else 0o644)
    if os.geteuid() == 0:
        os.chown(place.folder, NOBODY, NOBODY)
    names = (b"a", b"locked", b'say "it\'s"\nlocked', b"z")
    results = as_nobody(place, *names)
    for name in names:
        if b"locked" in name:
            assert isinstance(results[name], NotDelivered)
            assert results[name] == NotDelivered(obj=results[name].obj, reason="Permission denied")
        else:
            assert isinstance(results[name], Delivered)


def as_nobody(place: Place, *names: bytes) -> dict[bytes, Delivery]:
    """What an ordinary user gets."""
    return as_ordinary_user(lambda: place.deliver(*names))


def test_results_tell_how_much_was_sent(place: Place) -> None:
    place.write(b"f", os.urandom(100_000))
    result = place.deliver(b"f")[b"f"]
    assert isinstance(result, Delivered)
    assert 100_000 < result.sent_bytes < 101_000
