"""Plugins and a reader for tests of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lbcore import hookimpl
from lbcore.config.job import Config, JobConfig
from lbcore.config.loader import parse_config
from lbcore.errors import UsageError
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import DetectorPlugin, ExecutorPlugin, SnapshotterPlugin, TransferPlugin, VerifierPlugin


@dataclass(frozen=True, kw_only=True, slots=True)
class CarryOptions:
    compress: bool = False
    level: int = 3
    rate: float = 1.5
    program: str = "carry"
    arguments: tuple[str, ...] = ()
    password_file: str | None = None

    def __post_init__(self) -> None:
        if self.level > 9:
            raise ValueError(f"level is at most 9, found {self.level}")


@dataclass(frozen=True, kw_only=True, slots=True)
class NeedyOptions:
    host: str


class Things:
    """What a job chooses when it says nothing, and a little more."""

    @hookimpl
    def lb_register_snapshotters(self) -> Iterator[SnapshotterPlugin]:
        yield SnapshotterPlugin(name="none", summary="", create=lambda options: options)

    @hookimpl
    def lb_register_detectors(self) -> Iterator[DetectorPlugin]:
        yield DetectorPlugin(name="scan", summary="", create=lambda options: options)

    @hookimpl
    def lb_register_transfers(self) -> Iterator[TransferPlugin]:
        yield TransferPlugin(name="copy", summary="", create=lambda options: options)
        yield TransferPlugin(name="carry", summary="", config=CarryOptions, create=lambda options: options)
        yield TransferPlugin(name="needy", summary="", config=NeedyOptions, create=lambda options: options)

    @hookimpl
    def lb_register_verifiers(self) -> Iterator[VerifierPlugin]:
        yield VerifierPlugin(name="attributes", summary="", create=lambda options: options)
        yield VerifierPlugin(name="checksum", summary="", create=lambda options: options)

    @hookimpl
    def lb_register_executors(self) -> Iterator[ExecutorPlugin]:
        yield ExecutorPlugin(name="local", summary="", create=lambda options, workers: options)


FILE = "/etc/lb/lb.toml"
ENDS = 'source = "/s"\ntarget = "/t"\n'


def plugins_for_jobs() -> Plugins:
    """A manager with nothing but ``Things``."""
    plugins = Plugins(load=False)
    plugins.register(Things(), "things")
    return plugins


class Reader:
    """Reads configurations that are given as text."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins

    def file(self, text: str) -> Config:
        return parse_config(text.encode(), FILE, self.plugins)

    def job(self, lines: str) -> JobConfig:
        """The job ``home`` with these lines beside source and target."""
        return self.file(f"[job.home]\n{ENDS}{lines}\n").job("home")

    def error(self, text: str) -> str:
        """What is wrong with a file."""
        with pytest.raises(UsageError) as caught:
            self.file(text).check()
        assert caught.value.exit_code == 2
        assert str(caught.value).startswith(FILE)
        return str(caught.value)

    def job_error(self, lines: str) -> str:
        return self.error(f"[job.home]\n{ENDS}{lines}\n")


def ends(source: object, target: object, state_dir: object = None, name: str = "home") -> str:
    """A job with these ends."""
    more = f'state_dir = "{state_dir}"\n' if state_dir else ""
    return f'[job.{name}]\nsource = "{source}"\ntarget = "{target}"\n{more}'
