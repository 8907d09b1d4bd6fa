"""``lb verify``: the whole backup against the catalog."""

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lbcore.lock import locked
from lbcore.testing import MakeJob, compare_trees, read_tree
from lbcore.testing.job import Job
from tests.support.commands import back_up, call, configuration, lb, output


@pytest.fixture
def job(lb_job: MakeJob) -> Job:
    """Two points in time; ``file`` and ``gone`` have earlier contents."""
    job = lb_job()
    source = Path(os.fsdecode(job.source))
    (source / "d/e").mkdir(parents=True)
    (source / "d/e/inner").write_text("inner")
    (source / "file").write_text("first")
    (source / "gone").write_text("gone")
    os.link(source / "d/e/inner", source / "linked")
    os.symlink("file", source / "link")
    back_up(job)
    (source / "file").write_text("second")
    (source / "gone").unlink()
    (source / "d").rename(source / "moved")
    back_up(job)
    return job


@pytest.fixture
def tree(job: Job) -> Path:
    return Path(os.fsdecode(job.tree))


def damage(job: Job, *arguments: str) -> list[tuple[str, str, str]]:
    """(check, path, what) of everything found."""
    result = lb(job, "verify", "--json", *arguments)
    (found,) = json.loads(result.stdout)
    assert result.exit_code == (4 if found["damage"] else 0), result.output
    return [(entry["check"], entry["path"], entry["what"]) for entry in found["damage"]]


def test_a_sound_backup_is_found_sound_and_not_changed(job: Job) -> None:
    before = read_tree(job.target)
    said = output(job, "verify")
    assert said == "job: checked attributes, checksum, versions, strays: 6 objects, 2 earlier contents: no damage\n"
    # What is there is there with its content; the database's own files come and go.
    ignored = [name for name in before if b"job.db" in name or name == b".lb" or name == b".lb/lock"]
    after = read_tree(job.target)
    kept = [{name: node for name, node in side.items() if name not in ignored} for side in (before, after)]
    assert compare_trees(*kept) == []


def overwrite_quietly(file: Path) -> None:
    status = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"X")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


CASES: list[tuple[Callable[[Path], object], list[tuple[str, str, str]]]] = [
    (lambda tree: overwrite_quietly(tree / "file"), [("checksum", "file", "has other content than was brought")]),
    (
        lambda tree: overwrite_quietly(tree / "linked"),
        [
            ("checksum", "moved/e/inner", "has other content than was brought"),
            ("checksum", "linked", "has other content than was brought"),
        ],
    ),
    (lambda tree: (tree / "file").chmod(0o600), [("attributes", "file", "has mode 600 instead of 644")]),
]


@pytest.mark.parametrize(("break_it", "expected"), CASES, ids=["content", "hard link", "mode"])
def test_damage_in_the_mirror_is_found(
    job: Job, tree: Path, break_it: Callable[[Path], object], expected: list[tuple[str, str, str]]
) -> None:
    break_it(tree)
    assert sorted(damage(job)) == sorted(expected)


def test_a_missing_file_is_found(job: Job, tree: Path) -> None:
    status = tree.stat()
    (tree / "file").unlink()
    os.utime(tree, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert damage(job) == [
        ("attributes", "file", "is missing (No such file or directory)"),
    ]


def test_a_damaged_or_missing_earlier_content_is_found_with_its_point_in_time(job: Job) -> None:
    versions = sorted(path for path in Path(os.fsdecode(job.lb), "versions").rglob("*") if path.is_file())
    by_content = {path.read_text(): path for path in versions}
    overwrite_quietly(by_content["first"])
    by_content["gone"].unlink()

    name = {content: path.relative_to(os.fsdecode(job.target)) for content, path in by_content.items()}
    assert sorted(damage(job)) == sorted(
        [
            ("versions", "file", f"as of run 1: its kept content is damaged ({name['first']})"),
            (
                "versions",
                "gone",
                f"as of run 1: its kept content cannot be read: No such file or directory ({name['gone']})",
            ),
        ]
    )


def test_what_somebody_put_into_the_mirror_is_named_once(job: Job, tree: Path) -> None:
    (tree / "moved/stray").mkdir()
    (tree / "moved/stray/below").touch()
    (tree / "a\nb").touch()

    found = damage(job, "--only", "strays")
    assert sorted(found) == [
        ("strays", "a\\nb", "was not put there by lb"),
        ("strays", "moved/stray", "was not put there by lb"),
    ]


def test_a_symbolic_link_in_place_of_a_directory_is_not_followed(job: Job, tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / "moved", tmp_path / "outside", symlinks=True)
    (tmp_path / "outside/extra").touch()
    shutil.rmtree(tree / "moved")
    os.symlink(tmp_path / "outside", tree / "moved")

    found = damage(job)
    assert ("attributes", "moved", "is of another kind") in found
    assert ("checksum", "moved/e/inner", "cannot be read (Too many levels of symbolic links)") in found
    assert not any(check == "strays" for check, _, _ in found)


def test_only_the_named_checks_are_done(job: Job, tree: Path) -> None:
    overwrite_quietly(tree / "file")
    (tree / "stray").touch()

    assert [check for check, _, _ in damage(job, "--only", "checksum")] == ["checksum"]
    assert [check for check, _, _ in damage(job, "--only", "strays", "--only", "versions")] == ["strays"]
    result = lb(job, "verify", "--only", "nothing")
    assert result.exit_code == 2
    assert "there is no check 'nothing'; there are attributes, checksum, strays, versions" in result.stderr


def test_the_jobs_own_verifiers_are_used_when_there_are_some(job: Job, tree: Path) -> None:
    config = configuration(job, more='verify = ["attributes"]')
    overwrite_quietly(tree / "file")

    result = call(config, "verify")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "checked attributes, versions, strays: " in result.stdout


def test_a_person_reads_what_is_wrong_and_how_much(job: Job, tree: Path) -> None:
    overwrite_quietly(tree / "file")

    result = lb(job, "verify")
    assert result.exit_code == 4
    assert result.stdout.splitlines() == [
        "job: file: has other content than was brought",
        "job: checked attributes, checksum, versions, strays: 6 objects, 2 earlier contents: 1 problems found; "
        "'lb run job' brings 1 of its objects again",
    ]


def test_while_a_run_is_at_work_it_refuses(job: Job) -> None:
    with locked(os.path.join(job.lb, b"lock")):
        result = lb(job, "verify")
    assert result.exit_code == 11
    assert f"is held by process {os.getpid()}" in result.stderr


def test_after_a_run_that_was_cut_short_while_it_changed_the_mirror_it_refuses(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(os.fsdecode(job.source), "new").touch()
    with monkeypatch.context() as patch:
        patch.setattr("lbcore.run.place", None)
        with contextlib.suppress(TypeError):
            job.run()

    result = lb(job, "verify")
    assert result.exit_code == 75
    assert "run 3 was interrupted while it changed the backup; let 'lb run job' go on with it" in result.stderr
    back_up(job)
    assert damage(job) == []


def test_a_target_that_is_not_there_is_not_made(job: Job) -> None:
    os.rename(job.target, job.target + b"-away")

    result = lb(job, "verify")
    assert result.exit_code == 1
    assert "is the target mounted" in result.stderr
    assert not os.path.lexists(job.target)


def test_all_jobs_are_verified_even_when_one_cannot_be(lb_job: MakeJob) -> None:
    one, two = lb_job(name="one"), lb_job(name="two")
    os.mknod(two.source + b"/file", stat.S_IFREG | 0o600)
    back_up(two)
    os.unlink(two.tree + b"/file")

    result = call(configuration(one, two), "verify")
    assert result.exit_code == 1
    assert "one: there is nothing to verify" in result.stderr
    assert "two: file: is missing" in result.stdout
