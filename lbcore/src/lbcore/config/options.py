"""Checks a TOML table against a dataclass: names, types, defaults."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from lbcore.errors import UsageError

T = TypeVar("T")

_NONE = type(None)


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


_SHAPES: dict[Any, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool), bool),
    int: ("a whole number", _is_int, int),
    float: ("a number", _is_number, float),
    str: ("a string", lambda value: isinstance(value, str), str),
    tuple[str, ...]: ("a list of strings", _is_strings, tuple),
    list[str]: ("a list of strings", _is_strings, list),
    list: ("a list", lambda value: isinstance(value, list), list),
}
"""Annotation -> what to call it, whether a TOML value fits, how it becomes the field's value."""


def _alternatives(annotation: Any) -> list[Any]:
    """The annotations of which one must fit; ``None`` only means that the key can be left out."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for member in get_args(annotation) if member is not _NONE]
    return [annotation]


def check_options_class(config: type[Any]) -> None:
    """Refuse a plugin's ``config`` that no table could be checked against.

    :raises TypeError: when it is not a dataclass, or a field has a type that TOML values are not checked for.
    """
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise TypeError(f"config must be a dataclass, not {config!r}")
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        for member in _alternatives(hints[field.name]):
            if member not in _SHAPES:
                raise TypeError(f"{config.__name__}.{field.name}: options of type {member} are not supported")


def option_names(config: type[Any]) -> tuple[str, ...]:
    """The keys that a table for ``config`` may have."""
    return tuple(field.name for field in dataclasses.fields(config) if field.init)


def build(config: type[T], table: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass ``config`` with the table's values.

    ``where`` goes before each message, as ``FILE: job.home``. Keys that ``config`` does not know are ignored
    here: see ``check_known``.

    :raises UsageError: when a value has the wrong type or is refused, or a required key is missing.
    """
    hints = get_type_hints(config)
    values = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]  # T is a dataclass, as registered
        if not field.init:
            continue
        if field.name in table:
            values[field.name] = _convert(hints[field.name], table[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            members = " or ".join(_SHAPES[member][0] for member in _alternatives(hints[field.name]))
            raise UsageError(f"{where}.{field.name}: missing; set it to {members}")
    try:
        return config(**values)
    except (ValueError, TypeError, UsageError) as exc:
        # The border to foreign code: a plugin's dataclass may check its values itself.
        raise UsageError(f"{where}: {exc}") from exc


def check_known(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse keys that are not in ``known``.

    :raises UsageError: naming the key, the closest known one, and all that are known.
    """
    for key in table:
        if key not in known:
            raise UsageError(f"{where}.{key}: unknown key; {suggestion(key, known)}")


def suggestion(word: str, known: Collection[str]) -> str:
    """What could have been meant, and what there is."""
    close = difflib.get_close_matches(word, known, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    return f"{guess}known: {', '.join(known) or 'none'}"


def found(value: Any) -> str:
    """A TOML value in the words of a message."""
    match value:
        case bool():
            return f"found {str(value).lower()}"
        case int() | float():
            return f"found the number {value}"
        case str():
            return f"found the string {value!r}"
        case list():
            return f"found the list {value!r}"
        case dict():
            return "found a table"
    return f"found a {type(value).__name__}"


def _convert(annotation: Any, value: Any, where: str) -> Any:
    members = _alternatives(annotation)
    for member in members:
        _, fits, make = _SHAPES[member]
        if fits(value):
            return make(value)
    expected = " or ".join(_SHAPES[member][0] for member in members)
    raise UsageError(f"{where}: expected {expected}, {found(value)}")
