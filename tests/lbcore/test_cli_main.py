"""The command line: help that costs nothing, errors that become messages and exit statuses."""

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from lbcore import __version__, errors
from lbcore.cli.context import Lb
from lbcore.cli.main import main
from lbcore.cli.table import COMMANDS

LB = Path(sys.executable).parent / "lb"


def lb(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_help_lists_every_command_and_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys; from lbcore.cli.main import main; main(['--help'], standalone_mode=False); "
        "print('MODULES', *sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    text, _, modules = output.partition("MODULES")

    assert all(f"\n  {name}  " in text for name in COMMANDS)
    slow = {
        "xxhash",
        "sqlite3",
        "pathspec",
        "concurrent.futures.thread",
        "tomllib",
        "tomli",
        "lbcore.scope",
        "lbcore.builtin.scan",
        "lbcore.builtin.copy",
        "lb_rsync.transfer",
        "lb_lustre.changelog",
        "lb_lustre.commands",
    }
    assert not slow & set(modules.split())
    assert not {target.partition(":")[0] for target, _ in COMMANDS.values()} & set(modules.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_and_takes_a_configuration_file(name: str) -> None:
    result = lb(name, "--help")

    assert result.exit_code == 0
    if name != "config":
        assert "--config FILE" in result.stdout


def test_the_version_is_printed() -> None:
    assert lb("--version").stdout == f"lb, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["no-such"], ["--no-such"], ["plugins", "--no-such"], ["plugins", "x"]])
def test_a_wrong_command_line_is_status_2(arguments: list[str]) -> None:
    assert lb(*arguments).exit_code == 2


def test_a_misspelt_command_is_answered_with_the_right_one() -> None:
    assert "no command 'restor'; did you mean 'restore'?" in lb("restor").stderr


@pytest.fixture
def boom(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A command ``boom`` that raises ``boom.error``, or returns ``boom.status``."""
    module = ModuleType("boom")

    @click.command()
    @click.pass_obj
    def boom(obj: Lb) -> int | None:
        module.obj = obj  # type: ignore[attr-defined]
        if module.error is not None:
            raise module.error
        print("done")
        return module.status  # type: ignore[no-any-return]

    module.boom = boom  # type: ignore[attr-defined]
    module.error = None  # type: ignore[attr-defined]
    module.status = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "boom", module)
    monkeypatch.setitem(COMMANDS, "boom", ("boom:boom", "Fails."))
    return module


@pytest.mark.parametrize("status", [None, 0, 3, 5])
def test_what_a_command_returns_is_the_exit_status(boom: ModuleType, status: int | None) -> None:
    boom.status = status  # type: ignore[attr-defined]

    result = lb("boom")

    assert (result.exit_code, result.stdout) == (status or 0, "done\n")


ERRORS = [
    errors.LbError,
    errors.UsageError,
    errors.BrakeError,
    errors.LockedError,
    errors.PausedError,
    errors.SourceError,
    errors.TargetError,
    errors.CatalogError,
]


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_of_lb_is_a_message_and_its_exit_status(boom: ModuleType, error: type[errors.LbError]) -> None:
    boom.error = error("the disk\nis \x1b[31m full")  # type: ignore[attr-defined]

    result = lb("boom")

    assert (result.exit_code, result.stdout) == (error.exit_code, "")
    assert result.stderr == "lb: the disk\nlb: is \\x1b[31m full\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EIO, "Input/output error", b"/backup/\xff"), "lb: /backup/\\xff: Input/output error"),
        (OSError(errno.EXDEV, "Cross-device", "/a", None, "/b"), "lb: /a -> /b: Cross-device"),
        (OSError(errno.ENOSPC, "No space left", "/t"), "lb: /t: No space left (make room there"),
        (OSError("odd"), "lb: odd"),
        (sqlite3.DatabaseError("database disk image is malformed"), "lb: the database failed: database disk"),
        (KeyError("x"), "lb: unexpected KeyError: 'x' ('lb --debug' shows where"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "lb: Broken pipe"),
    ],
)
def test_an_unexpected_error_is_one_line_and_status_1(boom: ModuleType, error: Exception, message: str) -> None:
    boom.error = error  # type: ignore[attr-defined]

    result = lb("boom")

    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_an_interrupt_is_status_130(boom: ModuleType) -> None:
    boom.error = KeyboardInterrupt()  # type: ignore[attr-defined]

    result = lb("boom")

    assert (result.exit_code, result.stderr) == (130, "lb: interrupted\n")


def test_debug_shows_where_an_error_came_from(boom: ModuleType) -> None:
    boom.error = KeyError("x")  # type: ignore[attr-defined]

    assert "Traceback" not in lb("boom").stderr
    assert "Traceback" in lb("--debug", "boom").stderr


@pytest.mark.parametrize("arguments", [["-c", "FILE", "boom"], ["boom", "-c", "FILE"], ["boom", "--config=FILE"]])
def test_the_configuration_file_may_be_named_before_and_after_the_command(
    boom: ModuleType, arguments: list[str]
) -> None:
    lb(*arguments)

    assert boom.obj.config_file == "FILE"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["plugins"], ["--help"]])
def test_a_reader_that_has_seen_enough_makes_no_noise(arguments: list[str], unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([LB, *arguments], env=environment, stdout=pipe, stderr=subprocess.PIPE, check=False)

    assert (done.returncode, done.stderr) == (1, b"")


def test_a_name_that_the_terminal_cannot_show_is_escaped(boom: ModuleType, tmp_path: Path) -> None:
    config = tmp_path / "lb.toml"
    config.write_text('[job.home]\nsource = "/größe"\ntarget = "/t"\n')
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}

    done = subprocess.run([LB, "-c", config, "config", "show"], env=environment, capture_output=True, check=True)

    assert b'source = "/gr\\xf6\\xdfe"' in done.stdout
