"""Turns the section of one job into a ``JobConfig``; messages begin with ``where``, as ``FILE: job.home``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lbcore.config.job import Chosen, JobConfig
from lbcore.config.keys import JOB_KEYS, JobKeys
from lbcore.config.limits import MaxDelete, at_least_zero, parse_duration
from lbcore.config.options import build, check_known, found, option_names, suggestion
from lbcore.config.paths import Ends, check_own, is_inside, parse_path
from lbcore.errors import UsageError
from lbcore.plugins.listing import FIRST_PARTY
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import Registration
from lbcore.scope import Scope

R = TypeVar("R", bound=Registration)
T = TypeVar("T")

_COMMAND = "command"
"""The one kind that no job chooses."""
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_job_name(name: str, path: str) -> None:
    """Refuse a name that could not be a word on the command line or a part of a file name.

    :raises UsageError: naming the file ``path`` and the job.
    """
    if not _JOB_NAME.fullmatch(name):
        raise UsageError(
            f"{path}: job.{name!r}: not a job's name: use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )


def job_ends(section: Mapping[str, Any], where: str) -> Ends:
    """Source, target and state_dir of a section.

    :raises UsageError: when one of them is missing or not an absolute path.
    """
    for key in ("source", "target"):
        if key not in section:
            raise UsageError(f'{where}.{key}: missing; add {key} = "/absolute/path"')
    keys = build(JobKeys, {key: section[key] for key in ("source", "target", "state_dir") if key in section}, where)
    state_dir = keys.state_dir
    return Ends(
        source=_parsed(parse_path, keys.source, f"{where}.source"),
        target=_parsed(parse_path, keys.target, f"{where}.target"),
        state_dir=None if state_dir is None else _parsed(parse_path, state_dir, f"{where}.state_dir"),
    )


def build_job(name: str, section: Mapping[str, Any], where: str, plugins: Plugins) -> JobConfig:
    """The job that a section describes.

    :raises UsageError: naming the key that is wrong and what to do.
    """
    things = {name: kind for kind, name in FIRST_PARTY if kind != _COMMAND}
    things |= {thing.registration.name: thing.kind for thing in plugins.provided() if thing.kind != _COMMAND}
    _check_keys(section, things, where)
    ends = job_ends(section, where)
    keys = build(JobKeys, section, where)
    try:
        check_own(ends)
    except UsageError as exc:
        raise UsageError(f"{where}.{exc}") from exc
    if keys.history != "versions":
        raise UsageError(f"{where}.history: there is no history '{keys.history}'; known: versions")
    workers = min(8, os.cpu_count() or 1) if keys.workers is None else keys.workers
    if workers < 1:
        raise UsageError(f"{where}.workers: must be at least 1, found {workers}")

    def choose(key: str, kind: str, chosen: str, available: Mapping[str, R]) -> Chosen[R]:
        if chosen not in available:
            raise UsageError(f"{where}.{key}: {plugins.missing(kind, chosen)}")
        registration = available[chosen]
        options = build(registration.config, section.get(chosen, {}), f"{where}.{chosen}")
        return Chosen(name=chosen, registration=registration, options=options)

    transfers, verifiers = plugins.transfers(), plugins.verifiers()
    extras = plugins.extras()
    transfer_names = (keys.transfer,) if isinstance(keys.transfer, str) else keys.transfer
    if not transfer_names:
        raise UsageError(f'{where}.transfer: at least one is needed, as "copy"')
    _check_once(transfer_names, f"{where}.transfer")
    _check_once(keys.verify, f"{where}.verify")
    job = JobConfig(
        name=name,
        source=ends.source,
        target=ends.target,
        target_mount=_target_mount(keys.target_mount, ends.target, f"{where}.target_mount"),
        state_dir=ends.state_dir,
        snapshotter=choose("snapshotter", "snapshotter", keys.snapshotter, plugins.snapshotters()),
        detector=choose("detector", "detector", keys.detector, plugins.detectors()),
        transfers=tuple(choose("transfer", "transfer", word, transfers) for word in transfer_names),
        verifiers=tuple(choose("verify", "verifier", word, verifiers) for word in keys.verify),
        executor=choose("executor", "executor", keys.executor, plugins.executors()),
        extras=tuple(choose("extras", "extra", word, extras) for word in sorted(extras)),
        history=keys.history,
        exclude=_patterns(keys.exclude, f"{where}.exclude", ""),
        include=_patterns(keys.include, f"{where}.include", "!"),
        one_filesystem=keys.one_filesystem,
        max_delete=_parsed(MaxDelete.parse, keys.max_delete, f"{where}.max_delete"),
        racy_seconds=_parsed(at_least_zero, keys.racy_seconds, f"{where}.racy_seconds"),
        max_stale_seconds=_parsed(parse_duration, keys.max_stale, f"{where}.max_stale"),
        workers=workers,
    )
    _check_sections(section, job, things, where)
    return job


def _target_mount(text: str | None, target: bytes, where: str) -> bytes | None:
    if text is None:
        return None
    mount = _parsed(parse_path, text, where)
    if not is_inside(target, mount):
        raise UsageError(f"{where}: the target {os.fsdecode(target)} is not below {text}")
    return mount


def _check_keys(section: Mapping[str, Any], things: Mapping[str, str], where: str) -> None:
    """Every key is one of the job's, or a table for a plugin's thing, whether or not it is there."""
    for key, value in section.items():
        if key in JOB_KEYS:
            continue
        if key not in things:
            tables = sorted(things) if isinstance(value, dict) else []
            raise UsageError(f"{where}.{key}: unknown key; {suggestion(key, [*JOB_KEYS, *tables])}")
        if not isinstance(value, dict):
            raise UsageError(f"{where}.{key}: expected a section with options of '{key}', {found(value)}")


def _check_sections(section: Mapping[str, Any], job: JobConfig, things: Mapping[str, str], where: str) -> None:
    """Every table belongs to a thing that the job uses, and has only options that it knows."""
    known: dict[str, tuple[str, ...]] = {}
    for chosen in job.chosen():
        known[chosen.name] = known.get(chosen.name, ()) + option_names(chosen.registration.config)
    for key, value in section.items():
        if key in JOB_KEYS:
            continue
        if key not in known:
            raise UsageError(
                f"{where}.{key}: options for the {things[key]} '{key}', which this job does not use; "
                "choose it, or remove the section"
            )
        check_known(value, known[key], f"{where}.{key}")


def _check_once(names: tuple[str, ...], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: '{name}' is there more than once")


def _patterns(lines: tuple[str, ...], where: str, sign: str) -> tuple[str, ...]:
    for line in lines:
        if not line.strip():
            raise UsageError(f"{where}: {line!r} is no pattern; leave it out")
        if "\n" in line:
            raise UsageError(f"{where}: {line!r} holds several lines; write one string for each")
        try:
            Scope(exclude=[sign + line]).excludes(b"name", False)
        except ValueError as exc:
            raise UsageError(f"{where}: {line!r} is not a gitignore pattern: {exc}") from exc
    return lines


def _parsed(parse: Callable[[Any], T], value: Any, where: str) -> T:
    try:
        return parse(value)
    except UsageError as exc:
        raise UsageError(f"{where}: {exc}") from exc
