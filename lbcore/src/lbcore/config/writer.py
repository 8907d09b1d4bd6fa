"""Writes a job into a configuration file, new or existing, never over what is there."""

from __future__ import annotations

import os
import re

from lbcore.config.build import check_job_name
from lbcore.config.job import JobConfig
from lbcore.config.loader import SYSTEM_FILE, USER_FILE, job_sections, parse_config, parse_toml
from lbcore.config.template import HEAD, job_section
from lbcore.errors import UsageError
from lbcore.mounted import mount_of
from lbcore.plugins.manager import Plugins


def default_file() -> str:
    """Where a configuration goes that no ``-c`` places: ``$LB_CONFIG``, root's or the user's file."""
    if os.environ.get("LB_CONFIG"):
        return os.environ["LB_CONFIG"]
    return SYSTEM_FILE if os.geteuid() == 0 else os.path.expanduser(USER_FILE)


def default_name(source: str) -> str:
    """A job's name after the last part of its source's path."""
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.basename(source)).strip("-._")
    return word or "main"


def add_job(path: str, name: str, source: str, target: str, plugins: Plugins) -> JobConfig:
    """Write a section for the job ``name`` into the file ``path``, which is made if it is missing.

    The result is checked before anything is written.

    :raises UsageError: when the file has this job or cannot be written, or the job would not be valid.
    """
    mount = mount_of(target)
    for text in (source, target, mount or ""):
        _check_utf8(text)
    check_job_name(name, path)
    try:
        with open(path, "rb") as file:
            present = file.read()
    except (FileNotFoundError, NotADirectoryError):
        present = None
    except OSError as exc:
        raise UsageError(f"{path}: cannot be read: {exc.strerror}") from exc
    if present is not None and name in job_sections(parse_toml(present, path), path):
        raise UsageError(f"{path}: job '{name}' is already there; choose another name with --job, or edit the file")
    section = job_section(name, source, target, mount)
    if present is None:
        added = HEAD + section
    else:
        gap = "" if not present else "\n" if present.endswith(b"\n") else "\n\n"
        added = gap + section
    job = parse_config((present or b"") + added.encode(), path, plugins).job(name)
    try:
        _write(path, added.encode(), new=present is None)
    except OSError as exc:
        raise UsageError(f"{path}: cannot be written: {exc.strerror}; choose another file with -c") from exc
    return job


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise UsageError(f"{text!r} is not UTF-8: a TOML file cannot hold it; use a link with another name") from exc


def _write(path: str, content: bytes, *, new: bool) -> None:
    """Make the file, or add to its end; another process that makes it at the same time wins."""
    if new:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "xb" if new else "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
