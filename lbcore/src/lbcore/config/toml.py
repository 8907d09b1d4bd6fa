"""Writes TOML: what ``lb config show`` prints can be used as a configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def toml_value(value: Any) -> str:
    """A boolean, number, string or list as TOML."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            # A JSON string is a TOML string, but for one character.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(toml_value, value))}]"
    raise TypeError(f"no TOML for {value!r}")


def toml_key(key: str) -> str:
    """A key, quoted where it must be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def job_text(name: str, values: Mapping[str, Any]) -> str:
    """The section of a job, with the sections of its plugins; what is not set becomes a comment."""
    sections = {key: value for key, value in values.items() if isinstance(value, dict)}
    head = f"job.{toml_key(name)}"
    text = _section(head, {key: value for key, value in values.items() if key not in sections})
    return text + "".join("\n" + _section(f"{head}.{toml_key(key)}", value) for key, value in sections.items())


def _section(head: str, values: Mapping[str, Any]) -> str:
    lines = [
        f"# {key} is not set" if value is None else f"{key} = {toml_value(value)}" for key, value in values.items()
    ]
    return "\n".join([f"[{head}]", *lines, ""])
