"""docs/hooks.md cannot drift from the hook specifications: names, arguments and examples are checked."""

import importlib
import inspect
import re
import types
from pathlib import Path

import pytest

from lbcore.plugins.hookspec import LbSpecs
from lbcore.plugins.manager import EVENTS, KINDS, Plugins

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/hooks.md").read_text()
REAL_PLUGINS = ("lbcore.builtin.plugin", "lb_rsync.plugin", "lb_lustre.plugin")
SPECS = {name: spec for name, spec in vars(LbSpecs).items() if name.startswith("lb_")}
SECTIONS = dict(re.findall(r"^## (lb_\w+\(.*?\))\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def heading(name: str) -> str:
    arguments = [argument for argument in inspect.signature(SPECS[name]).parameters if argument != "self"]
    return f"{name}({', '.join(arguments)})"


def test_the_page_has_a_heading_for_each_hook_with_its_exact_arguments_and_no_other() -> None:
    assert list(SECTIONS) == [heading(name) for name in SPECS]


def test_every_hook_is_a_registration_of_a_known_kind_or_an_event() -> None:
    assert set(SPECS) == {f"lb_register_{kind}s" for kind in KINDS} | set(EVENTS)


@pytest.mark.parametrize("name", SPECS)
def test_the_example_of_each_hook_is_a_complete_plugin_that_uses_it(name: str) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", SECTIONS[heading(name)], re.DOTALL)
    module = types.ModuleType("example")
    exec(example, module.__dict__)
    plugins = Plugins(load=False)

    plugins.register(module, "example")

    assert hasattr(module, name)
    assert all(row.kind for row in plugins.listing())


@pytest.mark.parametrize("name", SPECS)
def test_each_hook_is_used_by_the_real_plugin_that_the_page_names(name: str) -> None:
    users = [module for module in REAL_PLUGINS if hasattr(importlib.import_module(module), name)]
    assert users
    assert [module for module in REAL_PLUGINS if f"`{module}`" in SECTIONS[heading(name)]] == users


@pytest.mark.parametrize("name", SPECS)
def test_each_hook_is_used_in_another_test(name: str) -> None:
    others = [file for file in (ROOT / "tests").rglob("test_*.py") if file != Path(__file__)]
    assert any(name in file.read_text() for file in others)
