"""The configuration: what is read, what is refused, and how the message helps."""

import json
import os
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import pytest

from lbcore import hookimpl
from lbcore.config.job import Config, JobConfig, to_plain
from lbcore.config.keys import JOB_KEYS, JobKeys
from lbcore.config.limits import MaxDelete, parse_duration
from lbcore.config.loader import load_config, parse_config
from lbcore.config.toml import job_text
from lbcore.errors import UsageError
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import (
    DetectorPlugin,
    ExecutorPlugin,
    NoOptions,
    SnapshotterPlugin,
    TransferPlugin,
    VerifierPlugin,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CarryOptions:
    compress: bool = False
    level: int = 3
    rate: float = 1.5
    program: str = "carry"
    arguments: tuple[str, ...] = ()
    password_file: str | None = None

    def __post_init__(self) -> None:
        if self.level > 9:
            raise ValueError(f"level is at most 9, found {self.level}")


@dataclass(frozen=True, kw_only=True, slots=True)
class NeedyOptions:
    host: str


class Things:
    """What a job chooses when it says nothing, and a little more."""

    @hookimpl
    def lb_register_snapshotters(self) -> Iterator[SnapshotterPlugin]:
        yield SnapshotterPlugin(name="none", summary="", create=lambda options: options)

    @hookimpl
    def lb_register_detectors(self) -> Iterator[DetectorPlugin]:
        yield DetectorPlugin(name="scan", summary="", create=lambda options: options)

    @hookimpl
    def lb_register_transfers(self) -> Iterator[TransferPlugin]:
        yield TransferPlugin(name="copy", summary="", create=lambda options: options)
        yield TransferPlugin(name="carry", summary="", config=CarryOptions, create=lambda options: options)
        yield TransferPlugin(name="needy", summary="", config=NeedyOptions, create=lambda options: options)

    @hookimpl
    def lb_register_verifiers(self) -> Iterator[VerifierPlugin]:
        yield VerifierPlugin(name="attributes", summary="", create=lambda options: options)
        yield VerifierPlugin(name="checksum", summary="", create=lambda options: options)

    @hookimpl
    def lb_register_executors(self) -> Iterator[ExecutorPlugin]:
        yield ExecutorPlugin(name="local", summary="", create=lambda options, workers: options)


FILE = "/etc/lb/lb.toml"
ENDS = 'source = "/s"\ntarget = "/t"\n'


@pytest.fixture
def plugins() -> Plugins:
    plugins = Plugins(load=False)
    plugins.register(Things(), "things")
    return plugins


@pytest.fixture
def read(plugins: Plugins) -> "Reader":
    return Reader(plugins)


class Reader:
    """Reads configurations that are given as text."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins

    def file(self, text: str) -> Config:
        return parse_config(text.encode(), FILE, self.plugins)

    def job(self, lines: str) -> JobConfig:
        """The job ``home`` with these lines beside source and target."""
        return self.file(f"[job.home]\n{ENDS}{lines}\n").job("home")

    def error(self, text: str) -> str:
        """What is wrong with a file."""
        with pytest.raises(UsageError) as caught:
            self.file(text).check()
        assert caught.value.exit_code == 2
        assert str(caught.value).startswith(FILE)
        return str(caught.value)

    def job_error(self, lines: str) -> str:
        return self.error(f"[job.home]\n{ENDS}{lines}\n")


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


@pytest.mark.parametrize("path", ["s", "./s", "~/s", "", "/a/../s", "/s\\u0000"])
def test_a_path_that_could_mean_several_places_is_an_error(read: Reader, path: str) -> None:
    message = read.error(f'[job.home]\nsource = "{path}"\ntarget = "/t"')

    assert message.startswith(f"{FILE}: job.home.source: ")


def ends(source: object, target: object, state_dir: object = None, name: str = "home") -> str:
    more = f'state_dir = "{state_dir}"\n' if state_dir else ""
    return f'[job.{name}]\nsource = "{source}"\ntarget = "{target}"\n{more}'


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


@pytest.mark.parametrize(
    ("limit", "removals", "objects", "allowed"),
    [
        ("25% and 1000", 1000, 1000, True),
        ("25% and 1000", 1001, 4004, True),
        ("25% and 1000", 1002, 4004, False),
        ("25% and 1000", 5000, 20000, True),
        ("25% and 1000", 5001, 20000, False),
        ("1000", 1000, 1, True),
        (1000, 1001, 10**9, False),
        (0, 0, 0, True),
        (0, 1, 100, False),
        ("25%", 25, 100, True),
        ("25%", 26, 100, False),
        ("29 %", 29, 100, True),
        ("0.1%", 1, 1000, True),
        ("0.1%", 2, 1000, False),
        ("100%", 1000, 1000, True),
        ("0%", 1, 1000, False),
    ],
)
def test_the_brake_stops_what_exceeds_every_limit_that_is_set(
    limit: int | str, removals: int, objects: int, allowed: bool
) -> None:
    assert MaxDelete.parse(limit).allows(removals, objects) is allowed


def test_a_brake_without_limits_allows_everything() -> None:
    assert MaxDelete(share=None, count=None).allows(10**9, 1)


@pytest.mark.parametrize("limit", ["", "%", "25%1000", "25% or 1000", "1e3", "-5", "101%", "and 5", "5 and 5%"])
def test_a_limit_that_is_not_clear_is_refused(limit: str) -> None:
    with pytest.raises(UsageError):
        MaxDelete.parse(limit)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        ("90s", 90),
        ("2m", 120),
        ("12h", 43200),
        ("1d 12h", 129600),
        ("1w1d", 691200),
        ("0.5h", 1800),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_has_units(duration: float | str, seconds: float) -> None:
    assert parse_duration(duration) == seconds


@pytest.mark.parametrize("duration", ["", "12", "h", "12 hours", "-1h", "1h x", -1])
def test_a_duration_that_is_not_clear_is_refused(duration: float | str) -> None:
    with pytest.raises(UsageError):
        parse_duration(duration)


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
