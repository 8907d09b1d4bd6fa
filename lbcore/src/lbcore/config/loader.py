"""Finds, reads and checks the configuration file."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lbcore.config.build import build_job, check_job_name, job_ends
from lbcore.config.job import Config, JobConfig
from lbcore.config.options import found, suggestion
from lbcore.config.paths import Ends, check_apart
from lbcore.errors import UsageError
from lbcore.plugins.manager import Plugins

# By name, because mypy checks for Python 3.10 and a newer one has no tomli.
tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

SYSTEM_FILE = "/etc/lb/lb.toml"
USER_FILE = "~/.config/lb/lb.toml"


def candidates(explicit: str | None) -> Iterator[tuple[str, str]]:
    """The files to try, each with who named it: the first that exists is the configuration."""
    if explicit:
        yield explicit, "-c"
    elif os.environ.get("LB_CONFIG"):
        yield os.environ["LB_CONFIG"], "$LB_CONFIG"
    else:
        yield SYSTEM_FILE, ""
        yield os.path.expanduser(USER_FILE), ""


def load_config(explicit: str | None, plugins: Plugins) -> Config:
    """Read the file named by ``-c``, else by ``$LB_CONFIG``, else the system's, else the user's.

    :raises UsageError: when there is none, or the file as a whole is wrong.
    """
    tried = []
    for path, named_by in candidates(explicit):
        try:
            with open(path, "rb") as file:
                content = file.read()
        except (FileNotFoundError, NotADirectoryError) as exc:
            if named_by:
                raise UsageError(f"{path}: no such file (named by {named_by})") from exc
            tried.append(path)
        except OSError as exc:
            raise UsageError(f"{path}: cannot be read: {exc.strerror}") from exc
        else:
            return parse_config(content, os.path.abspath(path), plugins)
    raise UsageError(
        f"no configuration: looked for {' and '.join(tried)}; write one with "
        "'lb init --source DIR --target DIR', or name one with -c or $LB_CONFIG"
    )


def parse_config(content: bytes, path: str, plugins: Plugins) -> Config:
    """Check the content of a configuration file; ``path`` is for messages.

    :raises UsageError: when the file as a whole is wrong. What is wrong with one job is in ``Config.broken``.
    """
    sections = job_sections(parse_toml(content, path), path)
    if not sections:
        raise UsageError(f"{path}: no job: add a section [job.NAME] with source and target")
    broken: dict[str, UsageError] = {}
    jobs: dict[str, JobConfig] = {}
    _check_apart(sections, path, broken)
    for name, section in sections.items():
        try:
            job = build_job(name, section, f"{path}: job.{name}", plugins)
        except UsageError as exc:
            broken[name] = exc
        else:
            if name not in broken:
                jobs[name] = job
    return Config(path=path, jobs=jobs, broken=broken)


def parse_toml(content: bytes, path: str) -> dict[str, Any]:
    """The file's tables.

    :raises UsageError: naming the line that is not TOML.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(content.decode())
    except UnicodeDecodeError as exc:
        number = content[: exc.start].count(b"\n") + 1
        raise UsageError(f"{path}: line {number}: not UTF-8 (byte 0x{content[exc.start]:02x})") from exc
    except tomllib.TOMLDecodeError as exc:
        message = str(exc)
        where = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", message)
        line = where[1] if where and where[1] else len(content.splitlines()) or 1
        raise UsageError(f"{path}: line {line}: not TOML: {message}") from exc
    return tables


def job_sections(tables: Mapping[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """The tables below ``job``, by name.

    :raises UsageError: when there is anything else in the file, or a job's name is not allowed.
    """
    for key in tables:
        if key != "job":
            raise UsageError(f"{path}: {key}: unknown key; {suggestion(key, ['job'])}; jobs are sections [job.NAME]")
    sections = tables.get("job", {})
    if not isinstance(sections, dict):
        raise UsageError(f"{path}: job: expected sections [job.NAME], {found(sections)}")
    for name, section in sections.items():
        check_job_name(name, path)
        if not isinstance(section, dict):
            raise UsageError(f"{path}: job.{name}: expected a section [job.NAME], {found(section)}")
    return sections


def _check_apart(sections: Mapping[str, Mapping[str, Any]], path: str, broken: dict[str, UsageError]) -> None:
    """Mark as broken each job that would write where another one does."""
    places: dict[str, Ends] = {}
    for name, section in sections.items():
        try:
            places[name] = job_ends(section, f"{path}: job.{name}")
        except UsageError:
            continue  # build_job says what is wrong with it
    for name, other in itertools.permutations(places, 2):
        try:
            check_apart(places[name], places[other], other)
        except UsageError as exc:
            error = UsageError(f"{path}: job.{name}.{exc}")
            broken.setdefault(name, error)
            broken.setdefault(other, error)
