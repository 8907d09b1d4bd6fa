"""What a plugin must keep to: ``TypeError`` and ``ValueError`` carry messages for its author."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from pluggy import HookImpl

from lbcore.config.keys import JOB_KEYS
from lbcore.config.options import check_options_class
from lbcore.plugins.types import Registration

_NAME = re.compile(r"[a-z][a-z0-9_-]*")


def check_hookimpl(impl: HookImpl, hook: str) -> None:
    """Refuse what pluggy would accept and lb would then not honour.

    Hooks are called one by one, so that a plugin cannot disturb another: wrappers and orders have no meaning
    there. A parameter with a default gets the default or the value, depending on pluggy's version.
    """
    for option in ("wrapper", "hookwrapper", "tryfirst", "trylast", "optionalhook"):
        if getattr(impl, option):
            raise TypeError(f"{hook}: the hook option '{option}' is not supported")
    for parameter in inspect.signature(impl.function).parameters.values():
        if parameter.default is not parameter.empty:
            raise TypeError(f"{hook}: parameter '{parameter.name}' must not have a default")
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise TypeError(f"{hook}: parameter '{parameter.name}' must be an ordinary positional one")


def check_registrations(returned: Any, wanted: type[Registration], hook: str) -> list[Any]:
    """The things that a ``lb_register_*`` hook returned, each checked."""
    if not isinstance(returned, Iterable):
        raise TypeError(f"{hook} must return an iterable of {wanted.__name__}, not {returned!r}")
    registrations = list(returned)
    for registration in registrations:
        if not isinstance(registration, wanted):
            raise TypeError(f"{hook} must return {wanted.__name__} objects, not {registration!r}")
        if not _NAME.fullmatch(registration.name):
            raise ValueError(f"{hook}: {registration.name!r} is not a name: use a-z, 0-9, '_' and '-'")
        if registration.name in JOB_KEYS:
            raise ValueError(f"{hook}: {registration.name!r} is a key of every job; use another name")
        check_options_class(registration.config)
    return registrations
