"""Plugins: loading, clashes, broken ones, events."""

import logging
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from lbcore import hookimpl
from lbcore.errors import UsageError
from lbcore.events import RunFinished, RunStarted, StageFinished
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import (
    CommandPlugin,
    DetectorPlugin,
    ExecutorPlugin,
    SnapshotterPlugin,
    TransferPlugin,
    VerifierPlugin,
)

STARTED = RunStarted(job="home", run=1, resumed=False, lb_folder=b"/backup/.lb")
STAGE = StageFinished(job="home", run=1, stage="lift", seconds=0.5, counts={"lifted": 3})
FINISHED = RunFinished(job="home", run=1, state="committed", exit_code=0, message="", counts={})


def transfer(name: str, **more: Any) -> TransferPlugin:
    return TransferPlugin(name=name, summary=f"transfer {name}", create=lambda options: options, **more)


class Carrier:
    """A plugin with one transfer."""

    def __init__(self, name: str = "carry") -> None:
        self.name = name

    @hookimpl
    def lb_register_transfers(self) -> Iterator[TransferPlugin]:
        yield transfer(self.name)


class Everything:
    """A plugin with a thing of each kind."""

    @hookimpl
    def lb_register_snapshotters(self) -> list[SnapshotterPlugin]:
        return [SnapshotterPlugin(name="snap", summary="s", create=lambda options: options)]

    @hookimpl
    def lb_register_detectors(self) -> list[DetectorPlugin]:
        return [DetectorPlugin(name="detect", summary="s", create=lambda options: options)]

    @hookimpl
    def lb_register_transfers(self) -> list[TransferPlugin]:
        return [transfer("carry")]

    @hookimpl
    def lb_register_verifiers(self) -> list[VerifierPlugin]:
        return [VerifierPlugin(name="check", summary="s", create=lambda options: options)]

    @hookimpl
    def lb_register_executors(self) -> list[ExecutorPlugin]:
        return [ExecutorPlugin(name="work", summary="s", create=lambda options, workers: options)]

    @hookimpl
    def lb_register_commands(self) -> list[CommandPlugin]:
        return [CommandPlugin(name="greet", summary="s", create=lambda: click.Command("greet"))]


class Listener:
    """A plugin that remembers events."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    @hookimpl
    def lb_run_started(self, event: RunStarted) -> None:
        self.heard.append(event)

    @hookimpl
    def lb_stage_finished(self, event: StageFinished) -> None:
        self.heard.append(event)

    @hookimpl
    def lb_run_finished(self, event: RunFinished) -> None:
        self.heard.append(event)


@pytest.fixture
def plugins() -> Plugins:
    return Plugins(load=False)


def install(folder: Path, distribution: str, entry: str, code: str) -> None:
    """A distribution with one plugin, as an installer leaves it."""
    module = f"{distribution.replace('-', '_')}_{entry}"
    (folder / f"{module}.py").write_text(code)
    metadata = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(f"[lbcore]\n{entry} = {module}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed distributions, beside which there is only the standard library."""
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    kept = [path for path in sys.path if path in standard or path.endswith(("lib-dynload", ".zip"))]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *kept])
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


GOOD = """
from lbcore import hookimpl
from lbcore.plugins.types import TransferPlugin

@hookimpl
def lb_register_transfers():
    return [TransferPlugin(name="carry", summary="carries", create=print)]
"""


def test_an_empty_manager_provides_nothing(plugins: Plugins) -> None:
    assert plugins.listing() == []
    assert plugins.transfers() == {}


def test_things_of_each_kind_are_found_by_name(plugins: Plugins) -> None:
    plugins.register(Everything(), "everything", distribution="lb-everything", version="3")

    assert list(plugins.snapshotters()) == ["snap"]
    assert list(plugins.detectors()) == ["detect"]
    assert list(plugins.transfers()) == ["carry"]
    assert list(plugins.verifiers()) == ["check"]
    assert list(plugins.executors()) == ["work"]
    assert list(plugins.commands()) == ["greet"]
    assert {(row.kind, row.name, row.distribution, row.version, row.state) for row in plugins.listing()} == {
        ("snapshotter", "snap", "lb-everything", "3", "ok"),
        ("detector", "detect", "lb-everything", "3", "ok"),
        ("transfer", "carry", "lb-everything", "3", "ok"),
        ("verifier", "check", "lb-everything", "3", "ok"),
        ("executor", "work", "lb-everything", "3", "ok"),
        ("command", "greet", "lb-everything", "3", "ok"),
    }


def test_two_things_of_one_kind_and_name_are_an_error_naming_both_distributions(plugins: Plugins) -> None:
    plugins.register(Carrier(), "first", distribution="lb-first", version="1.0")

    with pytest.raises(UsageError, match=r"transfer 'carry': 'first' \(lb-first 1.0\) and 'second' \(lb-second 2"):
        plugins.register(Carrier(), "second", distribution="lb-second", version="2.0")


def test_two_things_of_one_name_in_one_plugin_are_an_error(plugins: Plugins) -> None:
    class Twice:
        @hookimpl
        def lb_register_transfers(self) -> list[TransferPlugin]:
            return [transfer("carry"), transfer("carry")]

    with pytest.raises(UsageError, match="two plugins provide a transfer 'carry'"):
        plugins.register(Twice(), "twice")


def test_one_name_may_be_of_two_kinds(plugins: Plugins) -> None:
    class Both:
        @hookimpl
        def lb_register_transfers(self) -> list[TransferPlugin]:
            return [transfer("btrfs")]

        @hookimpl
        def lb_register_snapshotters(self) -> list[SnapshotterPlugin]:
            return [SnapshotterPlugin(name="btrfs", summary="s", create=lambda options: options)]

    plugins.register(Both(), "btrfs")

    assert list(plugins.transfers()) == list(plugins.snapshotters()) == ["btrfs"]


def test_two_plugins_of_one_name_are_an_error_naming_both_distributions(plugins: Plugins) -> None:
    plugins.register(Carrier("a"), "same", distribution="lb-first", version="1")

    with pytest.raises(UsageError, match="'same': one of lb-first 1, one of lb-second 2"):
        plugins.register(Carrier("b"), "same", distribution="lb-second", version="2")


class Misspelt:
    @hookimpl
    def lb_register_transfer(self) -> list[TransferPlugin]:
        return []


class DefaultParameter:
    @hookimpl
    def lb_run_started(self, event: RunStarted | None = None) -> None:
        pass


class KeywordOnly:
    @hookimpl
    def lb_run_started(self, *, event: RunStarted) -> None:
        pass


class UnknownParameter:
    @hookimpl
    def lb_run_started(self, event: RunStarted, job: str) -> None:
        pass


class First:
    @hookimpl(tryfirst=True)
    def lb_run_started(self, event: RunStarted) -> None:
        pass


class NotIterable:
    @hookimpl
    def lb_register_transfers(self) -> object:
        return transfer("carry")


class WrongKind:
    @hookimpl
    def lb_register_transfers(self) -> object:
        return [VerifierPlugin(name="check", summary="s", create=lambda options: options)]


class LateError:
    @hookimpl
    def lb_register_transfers(self) -> Iterator[TransferPlugin]:
        yield transfer("early")
        raise RuntimeError("no license")


class ReservedName:
    @hookimpl
    def lb_register_transfers(self) -> list[TransferPlugin]:
        return [transfer("exclude")]


class OddName:
    @hookimpl
    def lb_register_transfers(self) -> list[TransferPlugin]:
        return [transfer("My Transfer")]


@dataclass
class OddConfig:
    when: complex = 0j


class OddOptions:
    @hookimpl
    def lb_register_transfers(self) -> list[TransferPlugin]:
        return [transfer("odd", config=OddConfig)]


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (Misspelt, "lb_register_transfer"),
        (DefaultParameter, "lb_run_started: parameter 'event' must not have a default"),
        (KeywordOnly, "lb_run_started: parameter 'event' must be an ordinary positional one"),
        (UnknownParameter, "job"),
        (First, "lb_run_started: the hook option 'tryfirst' is not supported"),
        (NotIterable, "must return an iterable of TransferPlugin"),
        (WrongKind, "must return TransferPlugin objects"),
        (LateError, "no license"),
        (ReservedName, "'exclude' is a key of every job"),
        (OddName, "'My Transfer' is not a name"),
        (OddOptions, "OddConfig.when: options of type"),
    ],
)
def test_a_plugin_that_breaks_a_rule_is_refused_and_leaves_nothing_behind(
    plugins: Plugins, plugin: type[Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        plugins.register(plugin(), "wrong")

    assert plugins.listing() == []
    plugins.register(Carrier(), "wrong")
    assert list(plugins.transfers()) == ["carry"]


def test_installed_plugins_are_loaded_with_their_distribution_and_version(site: Path) -> None:
    install(site, "lb-one", "one", GOOD)

    (row,) = Plugins().listing()

    assert (row.name, row.kind, row.plugin, row.state) == ("carry", "transfer", "one", "ok")
    assert (row.distribution, row.version, row.summary) == ("lb-one", "1.2", "carries")


@pytest.mark.parametrize("code", ["import no_such_module", "raise SystemExit(3)", "def broken(:\n", "1 / 0"])
def test_a_plugin_that_fails_to_load_is_listed_with_its_error_and_the_others_work(site: Path, code: str) -> None:
    install(site, "lb-bad", "bad", code)
    install(site, "lb-one", "one", GOOD)

    plugins = Plugins()

    broken, good = plugins.listing()
    assert (broken.name, broken.distribution, broken.version, broken.state) == (
        "bad",
        "lb-bad",
        "1.2",
        "broken",
    )
    assert broken.error
    assert good.state == "ok"
    assert list(plugins.transfers()) == ["carry"]


def test_installed_plugins_that_clash_are_an_error(site: Path) -> None:
    install(site, "lb-one", "one", GOOD)
    install(site, "lb-two", "two", GOOD)

    with pytest.raises(UsageError, match=r"lb-one 1\.2.*lb-two 1\.2"):
        Plugins()
    assert list(Plugins(disabled=["one"]).transfers()) == ["carry"]


def test_a_disabled_plugin_is_not_even_imported(site: Path) -> None:
    install(site, "lb-one", "one", "1 / 0")

    plugins = Plugins(disabled=["one"])

    (row,) = plugins.listing()
    assert (row.name, row.state, row.distribution) == ("one", "disabled", "lb-one")
    assert "lb_one_one" not in sys.modules


def test_a_missing_thing_of_ours_names_the_package_to_install(plugins: Plugins) -> None:
    for kind, name, package in [
        ("transfer", "rsync", "lb-rsync"),
        ("transfer", "filediff", "lb-filediff"),
        ("retention", "calendar", "lb-retention"),
        ("notifier", "email", "lb-email"),
        ("snapshotter", "lustre", "lb-lustre"),
        ("detector", "changelog", "lb-lustre"),
        ("command", "lustre", "lb-lustre"),
    ]:
        assert f"install the package {package}" in str(plugins.missing(kind, name))


def test_a_missing_thing_whose_plugin_failed_to_load_says_so(site: Path) -> None:
    install(site, "lb-rsync", "rsync", "raise OSError('no rsync program')")

    assert "plugin 'rsync' failed to load: OSError: no rsync program" in str(Plugins().missing("transfer", "rsync"))


def test_a_missing_thing_names_other_plugins_that_failed_to_load(site: Path) -> None:
    install(site, "lb-bad", "bad", "1 / 0")

    message = str(Plugins().missing("transfer", "carry"))

    assert "no plugin provides a transfer 'carry'" in message
    assert "'bad' (ZeroDivisionError: division by zero)" in message


def test_a_missing_thing_whose_plugin_is_disabled_says_so(site: Path) -> None:
    install(site, "lb-rsync", "rsync", GOOD)

    assert "is disabled by --disable" in str(Plugins(disabled=["rsync"]).missing("transfer", "rsync"))


def test_a_missing_thing_is_answered_with_the_closest_and_all_known_names(plugins: Plugins) -> None:
    plugins.register(Carrier("carry"), "one")
    plugins.register(Carrier("throw"), "two")

    assert "did you mean 'carry'? known: carry, throw" in str(plugins.missing("transfer", "cary"))


def test_events_reach_every_plugin_in_the_order_they_happen(plugins: Plugins) -> None:
    listeners = [Listener(), Listener()]
    for number, listener in enumerate(listeners):
        plugins.register(listener, f"listener{number}")

    plugins.run_started(STARTED)
    plugins.stage_finished(STAGE)
    plugins.run_finished(FINISHED)

    assert all(listener.heard == [STARTED, STAGE, FINISHED] for listener in listeners)


@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit(1)])
def test_a_listener_that_raises_is_logged_and_the_others_still_hear(
    plugins: Plugins, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    class Faulty:
        @hookimpl
        def lb_run_finished(self, event: RunFinished) -> None:
            raise error

    before, after = Listener(), Listener()
    plugins.register(before, "before")
    plugins.register(Faulty(), "faulty")
    plugins.register(after, "zafter")

    with caplog.at_level(logging.ERROR):
        plugins.run_finished(FINISHED)

    assert before.heard == after.heard == [FINISHED]
    assert "lb_run_finished of plugin 'faulty' failed" in caplog.text


def test_a_listener_may_leave_out_the_event(plugins: Plugins) -> None:
    heard = []

    class Terse:
        @hookimpl
        def lb_run_finished(self) -> None:
            heard.append("finished")

    plugins.register(Terse(), "terse")
    plugins.run_finished(FINISHED)

    assert heard == ["finished"]


def test_a_plugin_that_only_listens_is_listed_with_its_events(plugins: Plugins) -> None:
    plugins.register(Listener(), "ear")

    (row,) = plugins.listing()

    assert (row.name, row.kind) == ("ear", "events")
    assert row.summary == "lb_run_started, lb_stage_finished, lb_run_finished"


def test_a_module_can_be_a_plugin(plugins: Plugins) -> None:
    module = ModuleType("carrier")
    exec(GOOD, module.__dict__)

    plugins.register(module, "carrier")

    assert list(plugins.transfers()) == ["carry"]
