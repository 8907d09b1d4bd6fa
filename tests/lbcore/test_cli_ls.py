"""``lb ls``."""

import os
import stat
from pathlib import Path

import pytest

from lbcore.testing import MakeJob
from lbcore.testing.job import Job
from tests.support.commands import back_up, json_of, lb, output


@pytest.fixture
def job(lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Run 1: ``a/file``, ``a/deep/er``, ``b``, a link. Run 2: ``a`` is ``c``, ``b`` is gone."""
    job = lb_job(max_delete="100%")
    source = Path(os.fsdecode(job.source))
    (source / "a/deep/er").mkdir(parents=True)
    (source / "a/file").write_bytes(b"content")
    (source / "b").write_bytes(b"")
    os.symlink("a/file", source / "link")
    (source / "a/file").chmod(0o4751)
    os.utime(source / "a/file", ns=(1, 1_700_000_000_123_456_789))
    back_up(job)
    (source / "a").rename(source / "c")
    (source / "b").unlink()
    back_up(job)
    return job


def test_the_root_is_listed_as_it_is_now(job: Job) -> None:
    assert output(job, "ls") == "c\nlink\n"
    assert output(job, "ls", ".") == "c\nlink\n"


def test_an_earlier_point_in_time_is_listed_as_it_was(job: Job) -> None:
    assert output(job, "ls", "--at", "1") == "a\nb\nlink\n"
    assert output(job, "ls", "--at", "1", "a") == "deep\nfile\n"


def test_a_path_below_the_source_is_understood_in_every_form(job: Job) -> None:
    for path in ("c", "./c/", job.source + b"/c"):
        assert output(job, "ls", path) == "deep\nfile\n"


def test_an_object_that_is_no_directory_is_listed_itself(job: Job) -> None:
    assert output(job, "ls", "c/file") == "c/file\n"


def test_an_empty_directory_lists_nothing(job: Job) -> None:
    assert output(job, "ls", "c/deep/er") == ""
    assert json_of(job, "ls", "c/deep/er") == []


def test_recursively_each_path_is_listed(job: Job) -> None:
    assert output(job, "ls", "-R") == "c\nc/deep\nc/deep/er\nc/file\nlink\n"
    assert output(job, "ls", "-R", "--at", "1", "a") == "a/deep\na/deep/er\na/file\n"


def test_the_long_form_shows_mode_owner_size_time_and_where_a_link_leads(job: Job) -> None:
    owner = f"{os.getuid():>5} {os.getgid():>5}"
    directory, file = output(job, "ls", "-l", "c").splitlines()
    assert file.startswith(f"-rwsr-x--x {owner}            7 2023-11-1")
    assert file.endswith(" file")
    assert directory.startswith("drwxr-xr-x") and directory.endswith(" deep")
    assert output(job, "ls", "-l", "link").endswith(" link -> a/file\n")


def test_json_holds_everything(job: Job) -> None:
    deep, file = json_of(job, "ls", "c")
    mtime = file.pop("mtime")
    assert file == {
        "path": "c/file",
        "object": file["object"],
        "kind": "file",
        "mode": "4751",
        "uid": os.getuid(),
        "gid": os.getgid(),
        "size": 7,
        "mtime_ns": 1_700_000_000_123_456_789,
        "link_target": None,
        "digest": file["digest"],
    }
    assert mtime.startswith("2023-11-1") and mtime[19:26] == ".123456" and mtime[26] in "+-"
    assert len(file["digest"]) == 32
    assert (deep["kind"], deep["size"], deep["digest"]) == ("directory", None, None)


def test_names_are_printed_as_one_line_each_and_stay_different(lb_job: MakeJob) -> None:
    job = lb_job()
    for name in (b"line\nbreak", b"\xff\xfe", b"back\\slash", b"\x1b[31m", "grün".encode()):
        os.mknod(os.path.join(job.source, name), stat.S_IFREG | 0o600)
    back_up(job)

    assert output(job, "ls").splitlines() == [r"\x1b[31m", r"back\\slash", "grün", r"line\nbreak", r"\xff\xfe"]


def test_a_directory_of_many_pages_is_listed_whole_and_sorted(lb_job: MakeJob) -> None:
    job = lb_job()
    names = [f"{number:05}" for number in range(2500)]
    for name in names:
        os.mknod(os.path.join(job.source, name.encode()), stat.S_IFREG | 0o600)
    back_up(job)
    os.rename(job.source + b"/01000", job.source + b"/00999x")
    os.unlink(job.source + b"/00000")
    back_up(job)

    assert output(job, "ls", "--at", "1").splitlines() == names
    now = sorted({*names, "00999x"} - {"01000", "00000"})
    assert output(job, "ls").splitlines() == now


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["missing"],
            "missing is not in the backup at run 2 ('lb history' tells when it was, 'lb ls' what else",
        ),
        (["--at", "1", "c"], "c is not in the backup at run 1"),
        (["--at", "3"], "there is no run 3; there are runs 1 to 2"),
        (["--job", "nobody"], "there is no job 'nobody'"),
    ],
)
def test_what_is_not_there_is_refused(job: Job, arguments: list[str], complaint: str) -> None:
    result = lb(job, "ls", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr


def test_before_the_first_run_there_is_no_backup(lb_job: MakeJob) -> None:
    job = lb_job()
    result = lb(job, "ls")
    assert result.exit_code == 1
    assert "there is no backup yet" in result.stderr
    assert not os.path.exists(job.target)
