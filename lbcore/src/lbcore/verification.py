"""``lb verify``: the whole backup against the catalog."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbcore import epoch
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.names import Paths
from lbcore.catalog.objects import ROOT, Row
from lbcore.catalog.past import Past
from lbcore.config.job import Chosen, JobConfig
from lbcore.copying import digest_of
from lbcore.errors import PausedError, TargetError, UsageError
from lbcore.failure import explained
from lbcore.held import version_path
from lbcore.lock import locked
from lbcore.mounted import check_mounted
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import Damage
from lbcore.progress import Progress
from lbcore.run import catalog_path
from lbcore.target import LB, TREE, Target
from lbcore.verifying import bring_again, verify

VERSIONS = "versions"
STRAYS = "strays"
_DEFAULT_VERIFIERS = ("attributes", "checksum")


@dataclass(kw_only=True, slots=True)
class Checked:
    """What was looked at."""

    names: list[str] = field(default_factory=list)
    """The checks, in their order."""
    objects: int = 0
    versions: int = 0
    to_bring: int = 0
    """Damaged objects of the mirror, which the next run brings again."""


class Verification:
    """Verifies one job. Holds its lock: what a run is changing would look like damage."""

    def __init__(self, job: JobConfig, plugins: Plugins, progress: Progress) -> None:
        self._job = job
        self._plugins = plugins
        self._progress = progress

    def checks(self, only: Sequence[str]) -> list[str]:
        """The names of the checks to do: those of ``only``, or all of the job's.

        :raises UsageError: when there is no such check.
        """
        usual = [chosen.name for chosen in self._job.verifiers] or list(_DEFAULT_VERIFIERS)
        known = {*self._plugins.verifiers(), VERSIONS, STRAYS}
        for name in only:
            if name not in known:
                raise UsageError(f"there is no check '{name}'; there are {', '.join(sorted(known))}")
        return list(dict.fromkeys(only or [*usual, VERSIONS, STRAYS]))

    def run(self, names: Sequence[str], report: Callable[[str, Damage], None]) -> Checked:
        """Do the checks; tell ``report`` what is wrong.

        :raises LockedError: while a run is at work.
        :raises PausedError: when a run was interrupted while it changed the mirror.
        """
        checked = Checked(names=list(names))
        said: set[tuple[bytes, str]] = set()
        damaged: set[bytes] = set()
        with self._open() as (catalog, target), explained(catalog_path(self._job)):
            checked.objects = catalog.objects.count()
            for name in names:
                self._progress.stage(name, checked.objects if name not in (VERSIONS, STRAYS) else None)
                for damage in self._check(name, catalog, target, checked):
                    if (damage.path, damage.what) not in said:  # two checks may find the same
                        said.add((damage.path, damage.what))
                        report(name, damage)
                    if name not in (VERSIONS, STRAYS):
                        damaged.add(damage.path)
            checked.to_bring = bring_again(catalog, damaged)
        return checked

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Catalog, Target]]:
        check_mounted(self._job)
        target_path = self._job.target
        for needed in (os.path.join(target_path, TREE), os.path.join(target_path, LB), catalog_path(self._job)):
            if not os.path.exists(needed):
                raise TargetError(
                    f"{self._job.name}: there is nothing to verify: {os.fsdecode(needed)} is missing or cannot be "
                    "reached; is the target mounted, and readable by this user?"
                )
        lock = os.path.join(target_path, LB, b"lock")
        with (
            contextlib.closing(Target(target_path)) as target,
            locked(lock),
            contextlib.closing(Catalog.open(catalog_path(self._job))) as catalog,
        ):
            epoch.check(catalog, target)
            opened = catalog.runs.open()
            if opened is not None and opened.state != "observing":
                raise PausedError(
                    f"{self._job.name}: run {opened.run} was interrupted while it changed the backup; let "
                    f"'lb run {self._job.name}' go on with it, then verify"
                )
            yield catalog, target

    def _check(self, name: str, catalog: Catalog, target: Target, checked: Checked) -> Iterator[Damage]:
        if name == VERSIONS:
            return self._versions(catalog, target, checked)
        if name == STRAYS:
            return self._strays(catalog, target)
        return verify(catalog, target, self._verifier(name), self._counted(catalog.objects.all_now()))

    def _verifier(self, name: str) -> Chosen[Any]:
        for chosen in self._job.verifiers:
            if chosen.name == name:
                return chosen
        registration = self._plugins.verifiers()[name]
        return Chosen(name=name, registration=registration, options=registration.config())

    def _counted(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            yield row
            self._progress.advance(1, row.size if stat.S_ISREG(row.mode) else 0)

    def _versions(self, catalog: Catalog, target: Target, checked: Checked) -> Iterator[Damage]:
        """Is every content that only an earlier point in time shows still what it was?"""
        for row, first, last in Past(catalog.database).kept_versions():
            checked.versions += 1
            wrong = _wrong_version(target, row)
            if wrong is not None:
                path = next(iter(Paths(catalog.names, last).of(row.obj)), b"")
                runs = f"run {last}" if first == last else f"runs {first} to {last}"
                yield Damage(path=path, what=f"as of {runs}: {wrong} (.lb/{os.fsdecode(version_path(row))})")
            self._progress.advance(1, row.size)

    def _strays(self, catalog: Catalog, target: Target) -> Iterator[Damage]:
        """What is in the mirror and not in the catalog; nothing below it is looked at."""
        waiting = [(b"", ROOT)]
        while waiting:
            path, directory = waiting.pop()
            try:
                fd = target.tree.open(path, os.O_RDONLY | os.O_DIRECTORY)
            except OSError as error:
                yield Damage(path=path, what=f"cannot be listed ({error.strerror})")
                continue
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        below = path + b"/" + name if path else name
                        obj = catalog.names.child(directory, name)
                        if obj is None:
                            yield Damage(path=below, what="was not put there by lb")
                        elif entry.is_dir(follow_symlinks=False):
                            waiting.append((below, obj))
                        self._progress.advance(1)
            finally:
                os.close(fd)


def _wrong_version(target: Target, row: Row) -> str | None:
    try:
        fd = target.lb.open(version_path(row), os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        return f"its kept content cannot be read: {error.strerror}"
    try:
        return None if row.digest in (None, digest_of(fd)) else "its kept content is damaged"
    except OSError as error:
        return f"its kept content cannot be read: {error.strerror}"
    finally:
        os.close(fd)
