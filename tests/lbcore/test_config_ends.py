"""Where a job's source and target may lie, and what jobs may not share."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbcore.errors import UsageError
from tests.support.configuration import FILE, Reader, ends, plugins_for_jobs


@pytest.fixture
def read() -> Reader:
    return Reader(plugins_for_jobs())


@pytest.mark.parametrize("path", ["s", "./s", "~/s", "", "/a/../s", "/s\\u0000"])
def test_a_path_that_could_mean_several_places_is_an_error(read: Reader, path: str) -> None:
    message = read.error(f'[job.home]\nsource = "{path}"\ntarget = "/t"')

    assert message.startswith(f"{FILE}: job.home.source: ")


def test_a_source_need_not_exist(read: Reader, tmp_path: Path) -> None:
    assert read.file(ends(tmp_path / "no" / "such", tmp_path / "target")).jobs


@pytest.mark.parametrize("target", ["source", "source/backup", "source/a/b/c"])
def test_a_target_inside_its_own_source_is_an_error(read: Reader, tmp_path: Path, target: str) -> None:
    (tmp_path / "source").mkdir()

    message = read.error(ends(tmp_path / "source", tmp_path / target))

    assert message.startswith(f"{FILE}: job.home.target: ")
    assert "inside the source" in message
    assert "choose a target elsewhere" in message


def test_a_target_beside_its_source_with_a_longer_name_is_no_error(read: Reader, tmp_path: Path) -> None:
    assert read.file(ends(tmp_path / "home", tmp_path / "home-backup")).jobs


def test_a_target_inside_its_own_source_by_a_link_is_an_error(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "source/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "source/inner")

    assert "inside the source" in read.error(ends(tmp_path / "source", tmp_path / "link/new/backup"))


def test_a_target_inside_its_own_source_that_is_a_link_is_an_error(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "source").symlink_to(tmp_path / "real")

    assert "inside the source" in read.error(ends(tmp_path / "source", tmp_path / "real/backup"))


def test_a_link_as_source_stays_a_link(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "source").symlink_to(tmp_path / "real")

    assert read.file(ends(tmp_path / "source", tmp_path / "t")).jobs["home"].source == bytes(tmp_path / "source")


def test_a_source_inside_its_target_is_an_error(read: Reader, tmp_path: Path) -> None:
    message = read.error(ends(tmp_path / "t/tree/x", tmp_path / "t"))

    assert f"{FILE}: job.home.source: " in message


@pytest.mark.parametrize("state_dir", ["source/state", "target/tree/state", "target/tree"])
def test_a_state_dir_in_the_source_or_the_mirror_is_an_error(read: Reader, tmp_path: Path, state_dir: str) -> None:
    message = read.error(ends(tmp_path / "source", tmp_path / "target", tmp_path / state_dir))

    assert f"{FILE}: job.home.state_dir: " in message


def test_a_target_that_is_not_below_its_mount_is_an_error(read: Reader, tmp_path: Path) -> None:
    message = read.error(ends(tmp_path / "source", tmp_path / "target") + '\ntarget_mount = "/elsewhere"')

    assert message == f"{FILE}: job.home.target_mount: the target {tmp_path}/target is not below /elsewhere"


def test_two_jobs_sharing_a_target_are_an_error_for_both(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "t")
    config = read.file(ends("/s1", tmp_path / "t", name="one") + ends("/s2", tmp_path / "link", name="two"))

    assert config.jobs == {}
    for name in ("one", "two"):
        with pytest.raises(UsageError, match="is also the target of job"):
            config.job(name)


@pytest.mark.parametrize("inner", ["t/tree", "t/tree/a", "t/.lb/x"])
def test_a_target_inside_what_another_job_writes_is_an_error_for_both(read: Reader, tmp_path: Path, inner: str) -> None:
    config = read.file(ends("/s1", tmp_path / "t", name="one") + ends("/s2", tmp_path / inner, name="two"))

    assert config.jobs == {}
    for name in ("one", "two"):
        with pytest.raises(UsageError, match=r"job\.two\.target: .* belongs to job 'one'"):
            config.job(name)


def test_targets_side_by_side_in_one_folder_are_no_error(read: Reader, tmp_path: Path) -> None:
    text = ends("/s1", tmp_path, name="one") + ends("/s2", tmp_path / "two", name="two")

    assert list(read.file(text).jobs) == ["one", "two"]


def test_two_jobs_sharing_a_state_dir_are_an_error(read: Reader, tmp_path: Path) -> None:
    one = ends("/s1", tmp_path / "t1", tmp_path / "state", name="one")
    two = ends("/s2", tmp_path / "t2", tmp_path / "state", name="two")

    assert "in the state_dir of job" in read.error(one + two)
