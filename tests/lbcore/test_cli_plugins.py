"""``lb plugins`` lists what there is, broken plugins included."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from lbcore import __version__, hookimpl
from lbcore.cli.context import Lb
from lbcore.cli.main import main
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import TransferPlugin

LB = Path(sys.executable).parent / "lb"


class Carrier:
    @hookimpl
    def lb_register_transfers(self) -> list[TransferPlugin]:
        return [TransferPlugin(name="carry", summary="carries\nthings", create=lambda options: options)]


def listing(*arguments: str, **environment: str) -> list[dict[str, Any]]:
    """What the installed command prints."""
    done = subprocess.run(
        [LB, *arguments, "plugins", "--json"],
        env={**os.environ, **environment},
        capture_output=True,
        check=True,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_the_table_has_a_line_for_each_thing() -> None:
    plugins = Plugins(load=False)
    plugins.register(Carrier(), "carrier", distribution="lb-carrier", version="2.1")

    result = CliRunner().invoke(main, ["plugins"], obj=Lb(plugins=plugins))

    head, line = result.stdout.splitlines()
    assert head.split() == ["NAME", "KIND", "DISTRIBUTION", "VERSION", "STATE", "SUMMARY"]
    assert line.split() == ["carry", "transfer", "lb-carrier", "2.1", "ok", "carries", "things"]


def test_the_built_in_things_come_through_the_same_door() -> None:
    built_in = {(row["kind"], row["name"]) for row in listing() if row["distribution"] == "lbcore"}

    assert built_in >= {
        ("snapshotter", "none"),
        ("detector", "scan"),
        ("transfer", "copy"),
        ("verifier", "attributes"),
        ("verifier", "checksum"),
        ("executor", "local"),
    }
    assert {row["version"] for row in listing() if row["distribution"] == "lbcore"} == {__version__}


def test_a_broken_plugin_is_listed_with_its_error_and_the_status_is_0(tmp_path: Path) -> None:
    (tmp_path / "bad_plugin.py").write_text("import no_such_module")
    metadata = tmp_path / "lb_bad-0.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lb-bad\nVersion: 0.3\n")
    (metadata / "entry_points.txt").write_text("[lbcore]\nbad = bad_plugin\n")

    search = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

    (row,) = [row for row in listing(PYTHONPATH=search) if row["state"] != "ok"]

    assert row == {
        "name": "bad",
        "kind": "",
        "plugin": "bad",
        "distribution": "lb-bad",
        "version": "0.3",
        "state": "broken",
        "error": "ModuleNotFoundError: No module named 'no_such_module'",
        "summary": "",
    }


def test_a_disabled_plugin_is_listed_as_disabled() -> None:
    (row,) = [row for row in listing("--disable", "core") if row["distribution"] == "lbcore"]

    assert (row["name"], row["state"]) == ("core", "disabled")
