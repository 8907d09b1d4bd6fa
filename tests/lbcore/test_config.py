"""The configuration: what is read, what is refused, and how the message helps."""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from lbcore.config.job import to_plain
from lbcore.config.keys import JOB_KEYS, JobKeys
from lbcore.config.limits import MaxDelete
from lbcore.config.loader import load_config, parse_config
from lbcore.config.toml import job_text
from lbcore.errors import UsageError
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import NoOptions
from tests.support.configuration import ENDS, FILE, CarryOptions, Reader, ends, plugins_for_jobs


@pytest.fixture
def plugins() -> Plugins:
    return plugins_for_jobs()


@pytest.fixture
def read(plugins: Plugins) -> Reader:
    return Reader(plugins)


def test_source_and_target_are_enough(read: Reader) -> None:
    job = read.job("")

    assert (job.name, job.source, job.target, job.state_dir) == ("home", b"/s", b"/t", None)
    assert (job.snapshotter.name, job.detector.name, job.executor.name) == ("none", "scan", "local")
    assert [chosen.name for chosen in job.transfers] == ["copy"]
    assert job.transfers[0].options == NoOptions()
    assert (job.verifiers, job.history, job.exclude, job.include) == ((), "versions", (), ())
    assert job.one_filesystem is False
    assert job.max_delete == MaxDelete(share=0.25, count=1000)
    assert (job.racy_seconds, job.max_stale_seconds) == (2.0, 0)
    assert job.workers == min(8, os.cpu_count() or 1)


def test_every_key_is_read(read: Reader) -> None:
    job = read.file("""
        [job."a.b-c_1"]
        source = "//s/./x/"
        target = "/täglich"
        state_dir = "/var/lib/lb"
        snapshotter = "none"
        detector = "scan"
        transfer = ["carry", "copy"]
        verify = ["checksum", "attributes"]
        executor = "local"
        history = "versions"
        exclude = ["/tmp/", "*.o"]
        include = ["keep.o"]
        one_filesystem = true
        max_delete = "10%"
        racy_seconds = 5
        max_stale = "12h"
        workers = 3
        [job."a.b-c_1".carry]
        compress = true
        rate = 2
        arguments = ["-x", "-y"]
    """).jobs["a.b-c_1"]

    assert (job.source, job.target, job.state_dir) == (b"/s/x", "/täglich".encode(), b"/var/lib/lb")
    assert [chosen.name for chosen in job.transfers] == ["carry", "copy"]
    assert job.transfers[0].options == CarryOptions(compress=True, rate=2.0, arguments=("-x", "-y"))
    assert [chosen.name for chosen in job.verifiers] == ["checksum", "attributes"]
    assert (job.exclude, job.include, job.one_filesystem) == (("/tmp/", "*.o"), ("keep.o",), True)
    assert job.max_delete == MaxDelete(share=0.1, count=None)
    assert (job.racy_seconds, job.max_stale_seconds, job.workers) == (5.0, 43200.0, 3)


def test_a_transfer_may_be_one_string(read: Reader) -> None:
    assert [chosen.name for chosen in read.job('transfer = "carry"').transfers] == ["carry"]


def test_an_unknown_key_is_named_with_its_file_the_closest_key_and_all_that_are_known(read: Reader) -> None:
    message = read.job_error("exlude = []")

    assert message.startswith(f"{FILE}: job.home.exlude: unknown key; did you mean 'exclude'? known: source, ")
    assert all(key in message for key in JOB_KEYS)


def test_an_unknown_key_of_a_plugin_is_named_with_its_section(read: Reader) -> None:
    message = read.job_error('transfer = "carry"\n[job.home.carry]\ncompres = true')

    assert f"{FILE}: job.home.carry.compres: unknown key; did you mean 'compress'?" in message


def test_an_unknown_key_at_the_top_is_an_error(read: Reader) -> None:
    assert "jobs: unknown key; did you mean 'job'?" in read.error("[jobs.home]")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("one_filesystem = 1", "job.home.one_filesystem: expected true or false, found the number 1"),
        ("workers = true", "job.home.workers: expected a whole number, found true"),
        ("workers = 1.5", "job.home.workers: expected a whole number, found the number 1.5"),
        ('exclude = "*.o"', "job.home.exclude: expected a list of strings, found the string '*.o'"),
        ("exclude = [' ']", "job.home.exclude: ' ' is no pattern; leave it out"),
        ("include = ['']", "job.home.include: '' is no pattern; leave it out"),
        ("exclude = [1]", "job.home.exclude: expected a list of strings, found the list [1]"),
        ("transfer = 3", "job.home.transfer: expected a string or a list of strings, found the number 3"),
        ("racy_seconds = inf", "job.home.racy_seconds: expected a number, found the number inf"),
        ("racy_seconds = '2s'", "job.home.racy_seconds: expected a number, found the string '2s'"),
        ("detector = {}", "job.home.detector: expected a string, found a table"),
        ("detector = 2024-01-01", "job.home.detector: expected a string, found a date"),
        ("carry = 3", "job.home.carry: expected a section with options of 'carry', found the number 3"),
        (
            'transfer = "carry"\n[job.home.carry]\nlevel = "3"',
            "job.home.carry.level: expected a whole number, found the string '3'",
        ),
    ],
)
def test_a_wrong_type_says_what_was_found_and_what_is_expected(read: Reader, lines: str, message: str) -> None:
    assert read.job_error(lines) == f"{FILE}: {message}"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("workers = 0", "job.home.workers: must be at least 1"),
        ("racy_seconds = -1", "job.home.racy_seconds: must not be negative"),
        ('max_stale = "soon"', "job.home.max_stale: expected a number of seconds or a duration"),
        ('max_delete = "many"', "job.home.max_delete: expected a number of objects, a share"),
        ("max_delete = -1", "job.home.max_delete: expected a number of objects, a share"),
        ("transfer = []", "job.home.transfer: at least one is needed"),
        ('transfer = ["copy", "copy"]', "job.home.transfer: 'copy' is there more than once"),
        ('verify = ["checksum", "checksum"]', "job.home.verify: 'checksum' is there more than once"),
        ('history = "none"', "job.home.history: there is no history 'none'; known: versions"),
        ('exclude = ["a\\nb"]', "job.home.exclude: 'a\\nb' holds several lines"),
        ('exclude = ["!"]', "job.home.exclude: '!' is not a gitignore pattern"),
        (
            'transfer = "carry"\n[job.home.carry]\nlevel = 10',
            "job.home.carry: level is at most 9, found 10",
        ),
        ('transfer = "needy"', "job.home.needy.host: missing; set it to a string"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(read: Reader, lines: str, message: str) -> None:
    assert read.job_error(lines).startswith(f"{FILE}: {message}")


@pytest.mark.parametrize("key", ["source", "target"])
def test_a_missing_end_is_an_error(read: Reader, key: str) -> None:
    other = "target" if key == "source" else "source"

    message = read.error(f'[job.home]\n{other} = "/x"')

    assert message == f'{FILE}: job.home.{key}: missing; add {key} = "/absolute/path"'


@pytest.mark.parametrize("name", ['"a b"', '"-a"', '".."', '""', '"a/b"', '"a\\nb"'])
def test_a_job_has_a_name_that_can_be_a_file_name_and_an_argument(read: Reader, name: str) -> None:
    assert "not a job's name" in read.error(f"[job.{name}]\n{ENDS}")


def test_a_file_without_a_job_is_an_error(read: Reader) -> None:
    assert read.error("") == f"{FILE}: no job: add a section [job.NAME] with source and target"


def test_a_job_that_is_no_section_is_an_error(read: Reader) -> None:
    assert "job: expected sections [job.NAME], found the number 3" in read.error("job = 3")
    assert "job.home: expected a section [job.NAME], found the string '/s'" in read.error('[job]\nhome = "/s"')


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[job.home]\nsource = /s\n", 2),
        (b'[job.home]\n\nsource = "/s', 3),
        (b'[job.home]\nsource = "/\xff"\n', 2),
        (b"[job.home]\n[job.home]\n", 2),
    ],
)
def test_what_is_not_toml_is_an_error_with_file_and_line(plugins: Plugins, content: bytes, line: int) -> None:
    with pytest.raises(UsageError, match=f"^{FILE}: line {line}: not "):
        parse_config(content, FILE, plugins)


def test_a_missing_plugin_names_the_key_and_the_package(read: Reader) -> None:
    message = read.job_error('transfer = ["rsync", "copy"]\n[job.home.rsync]\ncompress = true')

    assert message == (f"{FILE}: job.home.transfer: transfer 'rsync' is not installed: install the package lb-rsync")


def test_an_unknown_thing_names_those_that_are_known(read: Reader) -> None:
    message = read.job_error('verify = ["checksums"]')

    assert message == (
        f"{FILE}: job.home.verify: no plugin provides a verifier 'checksums'; "
        "did you mean 'checksum'? known: attributes, checksum"
    )


@pytest.mark.parametrize("name", ["carry", "rsync"])
def test_options_for_something_the_job_does_not_use_are_an_error(read: Reader, name: str) -> None:
    message = read.job_error(f"[job.home.{name}]")

    assert message == (
        f"{FILE}: job.home.{name}: options for the transfer '{name}', which this job does not use; "
        "choose it, or remove the section"
    )


def test_a_section_that_no_plugin_has_is_an_unknown_key(read: Reader) -> None:
    assert "job.home.cary: unknown key; did you mean 'carry'?" in read.job_error("[job.home.cary]")


def test_a_broken_job_does_not_stop_another(read: Reader) -> None:
    config = read.file('[job.good]\nsource = "/a"\ntarget = "/b"\n[job.bad]\nsource = "/c"\n')

    assert config.job("good").source == b"/a"
    with pytest.raises(UsageError, match=r"job\.bad\.target: missing"):
        config.job("bad")
    with pytest.raises(UsageError, match=r"job\.bad\.target: missing"):
        config.check()


def test_all_broken_jobs_are_reported_together(read: Reader) -> None:
    assert read.error("[job.one]\n[job.two]").splitlines() == [
        f'{FILE}: job.one.source: missing; add source = "/absolute/path"',
        f'{FILE}: job.two.source: missing; add source = "/absolute/path"',
    ]


def test_the_only_job_needs_no_name(read: Reader) -> None:
    assert read.file(f"[job.home]\n{ENDS}").job(None).name == "home"


def test_one_of_several_jobs_needs_a_name(read: Reader) -> None:
    config = read.file(ends("/a", "/b", name="one") + ends("/c", "/d", name="two"))

    with pytest.raises(UsageError, match="say which job is meant: one, two"):
        config.job(None)
    with pytest.raises(UsageError, match="there is no job 'on'; did you mean 'one'"):
        config.job("on")


def write(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[job.{name}]\n{ENDS}")
    return path


def test_the_file_is_searched_where_the_documentation_says(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbcore.config.loader.SYSTEM_FILE", str(tmp_path / "etc/lb.toml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LB_CONFIG", raising=False)
    with pytest.raises(UsageError, match=r"no configuration: looked for .*etc/lb.toml and .*lb init"):
        load_config(None, plugins)

    write(tmp_path / ".config/lb/lb.toml", "user")
    assert list(load_config(None, plugins).jobs) == ["user"]
    write(tmp_path / "etc/lb.toml", "system")
    assert list(load_config(None, plugins).jobs) == ["system"]
    monkeypatch.setenv("LB_CONFIG", str(write(tmp_path / "environment.toml", "environment")))
    assert list(load_config(None, plugins).jobs) == ["environment"]
    assert list(load_config(str(write(tmp_path / "given.toml", "given")), plugins).jobs) == ["given"]


def test_a_named_file_that_is_missing_is_an_error_and_no_other_is_read(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LB_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match=r"none.toml: no such file \(named by \$LB_CONFIG\)"):
        load_config(None, plugins)
    with pytest.raises(UsageError, match=r"other.toml: no such file \(named by -c\)"):
        load_config(str(tmp_path / "other.toml"), plugins)


def test_a_file_that_cannot_be_read_is_an_error(plugins: Plugins, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load_config(str(tmp_path), plugins)


ALL_KINDS = """
transfer = ["carry", "copy"]
state_dir = "/var/lib/lb/home"
verify = ["checksum"]
exclude = ["a \\"quoted\\" \\\\ name", "\\u007f\\t", "ä"]
max_delete = 7
max_stale = "1d 12h"
[job.home.carry]
rate = 0.1
arguments = ["-x"]
"""


@pytest.mark.parametrize("lines", ["", ALL_KINDS])
def test_what_is_in_effect_read_again_is_the_same(read: Reader, lines: str) -> None:
    job = read.job(lines)

    assert read.file(job_text("home", to_plain(job))).job("home") == job
    assert json.loads(json.dumps(to_plain(job))) == to_plain(job)


def test_the_values_in_effect_have_the_keys_of_the_file(read: Reader) -> None:
    plain = to_plain(read.job('transfer = "carry"'))

    assert list(plain) == [*JOB_KEYS, "carry"]
    assert plain["carry"] == {
        "compress": False,
        "level": 3,
        "rate": 1.5,
        "program": "carry",
        "arguments": [],
        "password_file": None,
    }


def test_the_documentation_has_a_row_for_each_key_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `") and line.count("|") == 5]
    documented = {row[0].strip("| `"): row[2] for row in rows}
    required = {field.name for field in fields(JobKeys) if field.default is MISSING}
    defaults = {field.name: field.default for field in fields(JobKeys) if field.name not in required}

    assert list(documented) == list(JOB_KEYS)
    assert {key for key, default in documented.items() if default == "required"} == required
    for key, default in defaults.items():
        if default is None:
            assert not documented[key].startswith("`")
        else:
            plain = list(default) if isinstance(default, tuple) else default
            assert documented[key] == f"`{json.dumps(plain)}`"
