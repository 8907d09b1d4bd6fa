"""``lb config validate`` and ``lb config show``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lbcore.cli.main import main
from lbcore.config.loader import load_config
from lbcore.plugins.manager import Plugins

TWO_JOBS = """
[job.one]
source = "/s"
target = "/t1"
workers = 3
[job.two]
source = "/s"
target = "/t2"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lb.toml"
    path.write_text(TWO_JOBS)
    return path


def lb(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_valid_configuration_is_said_to_be_valid(file: Path) -> None:
    result = lb("config", "validate", "-c", file)

    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{file}: 2 jobs, no errors\n", "")


def test_every_broken_job_is_reported_with_status_2(file: Path) -> None:
    file.write_text(TWO_JOBS.replace("workers", "wokers").replace('target = "/t2"', ""))

    result = lb("-c", file, "config", "validate")

    assert (result.exit_code, result.stdout) == (2, "")
    one, two = result.stderr.splitlines()
    assert one.startswith(f"lb: {file}: job.one.wokers: unknown key; did you mean 'workers'?")
    assert two.startswith(f"lb: {file}: job.two.target: missing")


def test_the_values_in_effect_are_a_valid_configuration(file: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown.toml"
    shown.write_text(lb("config", "show", "-c", file).stdout)

    plugins = Plugins()
    assert load_config(str(shown), plugins).jobs == load_config(str(file), plugins).jobs
    assert "workers = 3" in shown.read_text()
    assert "# state_dir is not set" in shown.read_text()


def test_one_job_can_be_shown(file: Path) -> None:
    output = lb("config", "show", "two", "-c", file).stdout

    assert "[job.two]" in output
    assert "[job.one]" not in output


def test_the_values_in_effect_are_printed_as_json(file: Path) -> None:
    plain = json.loads(lb("config", "show", "--json", "-c", file).stdout)

    assert plain["path"] == str(file)
    assert list(plain["jobs"]) == ["one", "two"]
    assert plain["jobs"]["one"]["workers"] == 3
    assert plain["jobs"]["two"]["workers"] == min(8, os.cpu_count() or 1)
    assert plain["jobs"]["two"]["max_delete"] == "25% and 1000"


def test_a_good_job_can_be_shown_beside_a_broken_one(file: Path) -> None:
    file.write_text(TWO_JOBS.replace('target = "/t2"', ""))

    assert lb("config", "show", "one", "-c", file).exit_code == 0
    assert lb("config", "show", "two", "-c", file).exit_code == 2
    assert lb("config", "show", "-c", file).exit_code == 2


def test_a_job_that_is_not_there_is_named(file: Path) -> None:
    result = lb("config", "show", "tow", "-c", file)

    assert result.exit_code == 2
    assert result.stderr == f"lb: {file}: there is no job 'tow'; did you mean 'two'? known: one, two\n"


def test_a_disabled_plugin_that_a_job_needs_is_an_error(file: Path) -> None:
    result = lb("--disable", "core", "config", "validate", "-c", file)

    assert result.exit_code == 2
    assert "job.one.snapshotter: no plugin provides a snapshotter 'none'" in result.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_target_inside_its_own_source_by_a_bind_mount_is_an_error(file: Path, tmp_path: Path) -> None:
    for name in ("source/inner", "mounted"):
        (tmp_path / name).mkdir(parents=True)
    file.write_text(f'[job.one]\nsource = "{tmp_path}/source"\ntarget = "{tmp_path}/mounted/inner/backup"\n')
    script = 'mount --bind "$1/source" "$1/mounted" && exec "$2" config validate -c "$3"'
    command = Path(sys.executable).parent / "lb"

    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", tmp_path, command, file],
        capture_output=True,
        text=True,
        check=False,
    )

    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert (done.returncode, "inside the source" in done.stderr) == (2, True)
