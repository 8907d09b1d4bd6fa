"""Commands that plugins add to ``lb``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from lbcore import hookimpl
from lbcore.cli.context import Lb
from lbcore.cli.main import main
from lbcore.cli.table import COMMANDS
from lbcore.errors import SourceError
from lbcore.plugins.manager import PluginClashError, Plugins
from lbcore.plugins.types import CommandPlugin
from lbcore.testing import MakeJob

LB = Path(sys.executable).parent / "lb"

CLASHING = """
from lbcore import hookimpl
from lbcore.plugins.types import CommandPlugin

@hookimpl
def lb_register_commands():
    return [CommandPlugin(name="run", summary="mine", create=print)]
"""


class Greeting:
    """A plugin with the command ``greet``."""

    def __init__(self, create: Callable[[], Any] | None = None) -> None:
        self.create = create or self.command
        self.created = 0

    def command(self) -> click.Command:
        self.created += 1

        @click.command()
        @click.argument("job")
        @click.pass_obj
        def greet(lb: Lb, job: str) -> int:
            """Greet a job."""
            print(f"hello {lb.job(job).name}, {lb.config_file}")
            if job == "bad":
                raise SourceError("the source is bad")
            return 3

        return greet

    @hookimpl
    def lb_register_commands(self) -> Iterable[CommandPlugin]:
        yield CommandPlugin(name="greet", summary="Says hello.", create=self.create)


def lb(plugin: object, *arguments: str) -> Result:
    plugins = Plugins(load=False)
    plugins.register(plugin, "greeting")
    return CliRunner().invoke(main, list(arguments), obj=Lb(plugins=plugins))


def test_help_loads_no_plugin_and_says_where_their_commands_are_listed() -> None:
    plugin = Greeting()
    result = lb(plugin, "--help")
    assert result.exit_code == 0
    assert "'lb plugins' lists them" in result.stdout
    assert plugin.created == 0
    assert "Greet a job." in lb(plugin, "greet", "--help").stdout


def test_the_command_gets_what_those_of_lb_get(lb_job: MakeJob) -> None:
    job = lb_job(Greeting(), name="bad")
    result = job.command("greet", "bad", "-c", "FILE")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "hello bad, FILE\n", "lb: the source is bad\n")
    job = lb_job(Greeting(), name="good")
    assert (job.command("greet", "good").exit_code, job.command("greet").exit_code) == (3, 2)


def test_plugins_lists_it_and_a_job_cannot_choose_it(lb_job: MakeJob) -> None:
    job = lb_job(Greeting())
    assert "greet" in job.command("plugins").stdout
    (row,) = [row for row in job.plugins.listing() if row.name == "greet"]
    assert (row.kind, row.state, row.summary) == ("command", "ok", "Says hello.")
    with pytest.raises(Exception, match="greet: unknown key"):
        job.configure(greet={"x": 1})


def test_what_is_no_command_is_named() -> None:
    result = lb(Greeting(create=lambda: "greet"), "greet", "job")
    assert result.exit_code == 2
    assert "the plugin that provides 'greet' gave no click command for it: 'greet'" in result.stderr


def test_a_wrong_word_is_answered_with_the_command_of_a_plugin_too() -> None:
    assert "no command 'gret'; did you mean 'greet'?" in lb(Greeting(), "gret").stderr


def test_a_command_of_a_package_that_is_not_there_names_it() -> None:
    assert "command 'lustre' is not installed: install the package lb-lustre" in lb(Greeting(), "lustre").stderr


def test_names_that_clash_are_fatal() -> None:
    plugins = Plugins(load=False, own_commands=COMMANDS)
    plugins.register(Greeting(), "one", distribution="lb-one", version="1")
    with pytest.raises(PluginClashError, match=r"two plugins provide a command 'greet': 'one' \(lb-one 1\) and 'two'"):
        plugins.register(Greeting(), "two", distribution="lb-two", version="2")

    class Running:
        @hookimpl
        def lb_register_commands(self) -> Iterable[CommandPlugin]:
            yield CommandPlugin(name="run", summary="mine", create=Greeting().command)

    with pytest.raises(PluginClashError, match=r"'running' \(lb-x 3\) provides a command 'run', which lb has itself"):
        plugins.register(Running(), "running", distribution="lb-x", version="3")
    assert list(plugins.commands()) == ["greet"]


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [("1 / 0", 0, "plugin 'odd' of lb-odd 1 failed to load"), (CLASHING, 2, "provides a command 'run', which lb has")],
)
def test_help_and_lb_itself_live_with_a_plugin_that_is_broken(
    tmp_path: Path, code: str, status: int, said: str
) -> None:
    (tmp_path / "odd_plugin.py").write_text(code)
    metadata = tmp_path / "lb_odd-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lb-odd\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[lbcore]\nodd = odd_plugin\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([LB, *arguments], env=environment, capture_output=True, text=True, check=False)

    helped = call("--help")
    assert helped.returncode == 0
    assert all(f"\n  {name}  " in helped.stdout for name in COMMANDS)
    assert (helped.stderr, "odd" in helped.stdout) == ("", False)
    assert call("run", "--help").returncode == 0
    listed = call("plugins")
    assert (listed.returncode, said in listed.stderr) == (status, True)
    assert call("--disable", "odd", "plugins").returncode == 0
