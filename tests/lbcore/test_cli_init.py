"""``lb init`` writes a configuration that runs as it is."""

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lbcore.cli.main import main
from lbcore.config.keys import JOB_KEYS
from lbcore.config.loader import load_config, parse_config
from lbcore.mounted import mount_of
from lbcore.plugins.manager import Plugins
from tests.support.running import mounted, needs_root


@pytest.fixture(autouse=True)
def private_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's and the user's file are in the test's folder."""
    for module in ("loader", "writer"):
        monkeypatch.setattr(f"lbcore.config.{module}.SYSTEM_FILE", str(tmp_path / "etc/lb/lb.toml"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LB_CONFIG", raising=False)
    (tmp_path / "source").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lb.toml"


def lb(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def init(*arguments: str | Path, source: str = "source", target: str = "target") -> Result:
    return lb("init", "--source", source, "--target", target, *arguments)


def test_what_is_written_is_valid_and_all_defaults(file: Path, tmp_path: Path) -> None:
    result = init("-c", file, "--job", "home")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"wrote job 'home' to {file}\nnext: lb -c {file} run home\n"
    plugins = Plugins()
    config = load_config(str(file), plugins)
    mount = mount_of(str(tmp_path))  # that of the folder for temporary files, where it has one
    plain = f'[job.home]\nsource = "{tmp_path}/source"\ntarget = "{tmp_path}/target"\n'
    plain += f'target_mount = "{mount}"' if mount else ""
    assert config.jobs == parse_config(plain.encode(), str(file), plugins).jobs
    assert lb("-c", file, "config", "validate").exit_code == 0


@needs_root
def test_a_target_on_a_mounted_filesystem_is_used_only_while_that_is_mounted(file: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with mounted(os.fsencode(tmp_path / "disk")):
        init("-c", file, "--job", "home", target="disk/backups/home")

    job = load_config(str(file), Plugins()).job("home")
    assert job.target_mount == os.fsencode(tmp_path / "disk")


def test_every_commented_setting_is_valid(file: Path, tmp_path: Path) -> None:
    init("-c", file, "--job", "home")
    text = file.read_text()
    settings = re.findall(r"^# ((\w+) = .*)$", text, re.MULTILINE)

    assert {key for _, key in settings} == {
        *(() if mount_of(str(tmp_path)) else ("target_mount",)),
        "transfer",
        "exclude",
        "include",
        "verify",
        "state_dir",
        "workers",
    }
    for setting, key in settings:
        assert key in JOB_KEYS
        others = "".join(line for line in text.splitlines(True) if not line.startswith(f"{key} ="))
        parse_config(f"{others}{setting}\n".encode(), str(file), Plugins()).check()


def test_a_second_job_is_added_and_the_first_stays_as_it_is(file: Path) -> None:
    init("-c", file, "--job", "one")
    before = file.read_text()

    assert init("-c", file, "--job", "two", target="other").exit_code == 0

    assert file.read_text().startswith(before)
    assert list(load_config(str(file), Plugins()).jobs) == ["one", "two"]


def test_a_job_is_added_to_a_file_whose_last_line_has_no_end(file: Path) -> None:
    file.write_text('[job.one]\nsource = "/s"\ntarget = "/t" # mine')

    assert init("-c", file, "--job", "two").exit_code == 0

    assert list(load_config(str(file), Plugins()).jobs) == ["one", "two"]


def test_an_empty_file_gets_its_first_job(file: Path) -> None:
    file.touch()

    assert init("-c", file, "--job", "one").exit_code == 0
    assert list(load_config(str(file), Plugins()).jobs) == ["one"]


def test_a_job_that_is_there_is_never_replaced(file: Path) -> None:
    init("-c", file, "--job", "home")
    before = file.read_bytes()

    result = init("-c", file, "--job", "home", target="other")

    assert result.exit_code == 2
    assert "job 'home' is already there; choose another name with --job" in result.stderr
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["not toml", 'job = { one = { source = "/s", target = "/t" } }', "[jobs]", "job = 3"]
)
def test_a_file_that_no_job_can_be_added_to_stays_as_it_is(file: Path, content: str) -> None:
    file.write_text(content)

    result = init("-c", file)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"lb: {file}: ")
    assert file.read_text() == content


@pytest.mark.parametrize(("target", "message"), [("source/backup", "inside the source"), (".", "inside the target")])
def test_a_job_that_could_not_run_is_not_written(file: Path, target: str, message: str) -> None:
    result = init("-c", file, target=target)

    assert result.exit_code == 2
    assert message in result.stderr
    assert not file.exists()


def test_a_target_that_another_job_has_is_refused(file: Path) -> None:
    init("-c", file, "--job", "one")
    before = file.read_bytes()

    result = init("-c", file, "--job", "two")

    assert result.exit_code == 2
    assert "also the target of job" in result.stderr
    assert file.read_bytes() == before


def test_root_gets_the_system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    assert "next: lb run source" in init().stdout
    assert (tmp_path / "etc/lb/lb.toml").exists()


def test_a_user_gets_a_file_of_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert "next: lb run source" in init().stdout
    assert (tmp_path / "home/.config/lb/lb.toml").exists()


def test_a_user_is_told_when_the_system_file_hides_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    init("-c", tmp_path / "etc/lb/lb.toml")

    assert f"next: lb -c {tmp_path}/home/.config/lb/lb.toml run source" in init().stdout


def test_the_environment_says_where_the_file_goes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LB_CONFIG", str(file))

    assert "next: lb run source" in init().stdout
    assert file.exists()


@pytest.mark.parametrize(("source", "name"), [("/", "main"), ("/srv/My Data!", "My-Data"), ("/a/.git", "git")])
def test_a_job_without_a_name_is_named_after_its_source(file: Path, source: str, name: str) -> None:
    target = "/proc/none" if source != "/" else "x"
    result = init("-c", file, source=source, target=target)

    if source == "/":
        assert "job.main.target: " in result.stderr
    else:
        assert list(load_config(str(file), Plugins()).jobs) == [name]


def test_a_source_that_is_not_there_is_a_note_and_no_error(file: Path, tmp_path: Path) -> None:
    result = init("-c", file, source="later")

    assert result.exit_code == 0
    assert result.stderr == f"lb: note: {tmp_path}/later is not a directory now\n"


@pytest.mark.parametrize("source", ['quo"te', "back\\slash", "{target}", "line\nend", "größe", "del\x7f"])
def test_odd_names_arrive_unharmed(file: Path, tmp_path: Path, source: str) -> None:
    assert init("-c", file, "--job", "odd", source=source).exit_code == 0

    job = load_config(str(file), Plugins()).job("odd")
    assert (job.source, job.target) == (os.fsencode(tmp_path / source), bytes(tmp_path / "target"))


def test_a_name_that_toml_cannot_hold_is_refused(file: Path) -> None:
    result = init("-c", file, source=os.fsdecode(b"latin-\xe4"))

    assert result.exit_code == 2
    assert "is not UTF-8" in result.stderr
    assert not file.exists()


def test_a_bad_job_name_is_refused(file: Path) -> None:
    assert "not a job's name" in init("-c", file, "--job", "a/b").stderr
    assert not file.exists()


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()

    result = init("-c", tmp_path / "plain/lb.toml")

    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
