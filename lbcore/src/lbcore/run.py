"""One run of one job, from the lock to the committed point in time."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, field
from typing import Any

from lbcore import brake, collecting, epoch, following, runfile, source
from lbcore.apply import content
from lbcore.apply.arriving import Unreadable
from lbcore.apply.content import Sources
from lbcore.apply.finish import finish_directories, finish_objects
from lbcore.apply.lift import lift
from lbcore.apply.place import place
from lbcore.apply.recovering import place_delivered, undo_new
from lbcore.apply.work import MISSING, Work
from lbcore.away import name_new
from lbcore.catalog.catalog import Catalog
from lbcore.catalog.runs import Run
from lbcore.catalog.steps import State, What
from lbcore.config.job import JobConfig
from lbcore.config.limits import MaxDelete
from lbcore.errors import (
    EXIT_DAMAGE,
    EXIT_DONE,
    EXIT_GAP,
    EXIT_SOURCE_ERRORS,
    BrakeError,
    LbError,
    PausedError,
    TargetError,
    combined_exit_code,
)
from lbcore.events import RunFinished, RunStarted, StageFinished
from lbcore.failure import explain
from lbcore.keeping import find_keeping
from lbcore.lock import locked
from lbcore.model import View
from lbcore.mounted import check_mounted
from lbcore.observing import Observing
from lbcore.plugins.manager import Plugins
from lbcore.plugins.types import Detector, Source
from lbcore.printable import printable, printable_message
from lbcore.progress import Progress
from lbcore.scope import Scope
from lbcore.snapshots import Snapshots
from lbcore.target import LB, Target
from lbcore.verifying import verify_run
from lbcore.versions import Versions

_log = logging.getLogger(__name__)

_SCOPE_SEEN = "scope_seen"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the command line asks of a run."""

    full: bool = False
    """Scan, even where a feed could tell, and compare every name, even where a fingerprint could tell."""
    max_delete: MaxDelete | None = None
    """Instead of the job's, once."""


@dataclass(kw_only=True, slots=True)
class Outcome:
    """How a run ended."""

    job: str
    run: int
    state: str
    exit_code: int
    seconds: float
    message: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    problems: int = 0


def catalog_path(job: JobConfig) -> bytes:
    """Where a job's database is."""
    return os.path.join(job.state_dir or os.path.join(job.target, LB), b"job.db")


@contextlib.contextmanager
def opened(job: JobConfig) -> Iterator[tuple[Catalog, Target]]:
    """Target and catalog of a job, locked, and proved to belong together.

    :raises TargetError, LockedError, CatalogError: when they cannot be used.
    """
    check_mounted(job)
    path = catalog_path(job)
    if os.path.lexists(path) and not os.path.lexists(os.path.join(job.target, LB)):
        # Before anything is made: it may be the empty folder that the target is to be mounted on.
        raise TargetError(
            f"the target {os.fsdecode(job.target)} holds no backup, while the catalog {os.fsdecode(path)} knows of one "
            "there: is it mounted? To begin anew with an empty target, remove that catalog"
        )
    epoch.check_there(path, job.target)
    with contextlib.closing(Target(job.target)) as target, locked(os.path.join(target.path, LB, b"lock")):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.closing(Catalog.open(path)) as catalog:
            epoch.check(catalog, target)
            yield catalog, target


class JobRun:
    """Runs one job once. Use: ``JobRun(...).run()``."""

    def __init__(
        self,
        job: JobConfig,
        plugins: Plugins,
        options: Options,
        progress: Progress,
        pause_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self._job = job
        self._plugins = plugins
        self._options = options
        self._progress = progress
        self._pause_requested = pause_requested
        self._scope = Scope(exclude=job.exclude, include=job.include, one_filesystem=job.one_filesystem)
        self._source = Source(job=job.name, path=job.source)

    # -- the whole ----------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Bring the backup to the source's present state. Errors become the outcome's state and exit code."""
        started = time.monotonic()
        outcome = Outcome(job=self._job.name, run=0, state="failed", exit_code=1, seconds=0)
        try:
            source.look_at_root(self._job.source)
            with opened(self._job) as (catalog, target):
                if self._run_locked(catalog, target, outcome) == "verifying":
                    # That one only had to be committed: it holds what the source was when it was cut short.
                    number, code = outcome.run, outcome.exit_code
                    self._run_locked(catalog, target, outcome)
                    if code != EXIT_DONE:
                        outcome.message = f"run {number}, which was cut short before its end, ended with status {code}"
                    outcome.exit_code = combined_exit_code([code, outcome.exit_code])
        except PausedError as error:
            outcome.state, outcome.exit_code, outcome.message = "paused", error.exit_code, str(error)
        except BrakeError as error:
            outcome.state, outcome.exit_code, outcome.message = "braked", error.exit_code, str(error)
        except LbError as error:
            outcome.state, outcome.exit_code, outcome.message = "failed", error.exit_code, str(error)
        except (OSError, sqlite3.Error) as error:
            outcome.state, outcome.exit_code = "failed", 1
            outcome.message = self._explained(error)
        except BrokenExecutor as error:
            outcome.state, outcome.exit_code = "failed", 1
            outcome.message = f"a worker ended unexpectedly: {error} 'lb run' goes on; nothing is lost"
        outcome.seconds = time.monotonic() - started
        return outcome

    def _run_locked(self, catalog: Catalog, target: Target, outcome: Outcome) -> str | None:
        """Begin a run, or go on with the open one; returns the state in which that one was found."""
        root, _ = source.look_at_root(self._job.source)
        source.check_identity(catalog, self._job.source, root)
        opened = catalog.runs.open()
        if opened is None:
            with catalog.database.transaction():
                number = catalog.runs.begin(time.time_ns())
        else:
            number = opened.run
            with catalog.database.transaction():
                catalog.runs.update(number, resumed=opened.resumed + 1, message=None)
        outcome.run = number
        self._plugins.run_started(
            RunStarted(
                job=self._job.name,
                run=number,
                resumed=opened is not None,
                lb_folder=os.path.join(self._job.target, LB),
            )
        )
        finished = None
        try:
            self._stages(catalog, target, number, opened, outcome)
        except BaseException as error:
            finished = error
            self._note_end(catalog, number, error)
            raise
        finally:
            run = catalog.runs.get(number)
            assert run is not None
            outcome.counts, outcome.problems = dict(run.counts), catalog.runs.problem_count(number)
            for problem in catalog.runs.problems(number):
                _log.info("%s: %s", printable(problem.path or b"."), problem.reason)
            self._plugins.run_finished(
                RunFinished(
                    job=self._job.name,
                    run=number,
                    state=run.state if finished is None else "failed",
                    exit_code=outcome.exit_code if finished is None else getattr(finished, "exit_code", 1),
                    message="" if finished is None else str(finished),
                    counts=run.counts,
                )
            )
        return None if opened is None else opened.state

    def _explained(self, error: OSError | sqlite3.Error) -> str:
        return explain(error, self._job.target, catalog_path(self._job))

    def _note_end(self, catalog: Catalog, number: int, error: BaseException) -> None:
        """The run ended early: say why, where ``lb runs`` shows it. It stays open (a braked one is planned anew)."""
        with contextlib.suppress(sqlite3.Error), catalog.database.transaction():
            said = self._explained(error) if isinstance(error, OSError | sqlite3.Error) else str(error)
            values: dict[str, Any] = {"message": said}
            if isinstance(error, BrakeError):
                values |= {"state": "braked", "removals": brake.removals_planned(catalog)}
            catalog.runs.update(number, **values)

    def _stages(self, catalog: Catalog, target: Target, number: int, opened: Run | None, outcome: Outcome) -> None:
        work = Work(
            catalog=catalog,
            target=target,
            versions=Versions(target),
            run=number,
            resumed=opened is not None,
            progress=self._progress,
            pause_requested=self._pause_requested,
        )
        snapshots = Snapshots(self._job, catalog, self._plugins)
        if opened is not None and opened.state in ("applying", "filling"):
            catalog.end_first_load()
            self._settle(work, filling=opened.state == "filling")
        if opened is None or opened.state != "verifying":
            try:
                self._bring(work, snapshots)
            except BrakeError:
                snapshots.clear()  # it is planned anew
                raise
            with catalog.database.transaction():
                catalog.runs.update(number, state="verifying")
        self._finish(work, outcome)
        snapshots.clear()
        if snapshots.left:
            left = "; ".join(f"{name}: {reason}" for name, reason in snapshots.left.items())
            outcome.message = f"could not be destroyed, the next run tries again: {left}"

    # -- stages -------------------------------------------------------------------------------------------------

    def _settle(self, work: Work, *, filling: bool) -> None:
        """Complete what an earlier attempt began and what needs no view: the mirror is as the catalog says again."""
        with self._stage("settle", work):
            work.target.redoing = True
            lift(work)
            place(work)
            if filling:
                undo_new(work)
                place_delivered(work)
            finish_objects(work)
            finish_directories(work)
            work.target.redoing = False
            self._forget_undone(work.catalog, work.run)

    @staticmethod
    def _forget_undone(catalog: Catalog, run: int) -> None:
        """What the plan announced and nobody did is planned anew, and counted then.

        From here on the run observes again: whoever finds it cut short must not take what it has seen for a plan.
        """
        planned, done = (
            plan_counts(catalog),
            plan_counts(catalog, f"state >= {State.DONE:d}"),
        )  # or failed: counted then
        with catalog.database.transaction():
            catalog.runs.add_counts(run, {key: done[key] - planned[key] for key in planned})
            catalog.plan.clear()
            catalog.runs.update(run, state="observing")

    def _bring(self, work: Work, snapshots: Snapshots) -> None:
        """Collect, take a snapshot, collect again, observe, plan and apply."""
        job, catalog = self._job, work.catalog
        detector: Detector = job.detector.registration.create(job.detector.options)
        if not snapshots.keep(work.run):
            with self._stage("collect", work):
                self._collect(work, detector)
            if snapshots.stable:
                with self._stage("flush", work):
                    collecting.flush(catalog, work.run, detector, self._source, job.racy_seconds)
                with self._stage("snapshot", work):
                    snapshots.take(work.run)
        with snapshots.view(work.run) as view:
            with self._stage("collect", work), collecting.collecting(job.target, work.pause_point):
                collection = collecting.collect_again(catalog, work.run, detector, self._source, view)
            scan, gap = following.choose(catalog, detector, self._scope, full=self._options.full)
            if gap is not None:
                _log.info("the feed has a gap, so this run scans: %s", printable_message(gap))
            with catalog.database.transaction():
                catalog.runs.update(work.run, scan=int(scan is not None), gap=gap)
                catalog.meta.put(_SCOPE_SEEN, str(self._scope.fingerprint))
            with self._stage("observe", work):
                self._observe(work, view, detector, collection + 1, scan=scan is not None)
            with self._stage("plan", work):
                self._begin_applying(work)
            self._apply(work, view, collection + 1)

    def _collect(self, work: Work, detector: Detector) -> None:
        with collecting.collecting(self._job.target, work.pause_point):
            found = collecting.collect(work.catalog, detector, self._source, run=work.run)
        for note in found.notes:
            _log.info("%s", printable_message(note))

    def _observe(self, work: Work, view: View, detector: Detector, kept_collection: int, *, scan: bool) -> None:
        self._progress.stage("observe")
        observing = Observing(
            work.catalog,
            work.run,
            view,
            self._scope,
            keeping=find_keeping(self._job.extras, view.root),
            racy_seconds=self._job.racy_seconds,
            workers=self._job.workers,
            kept_collection=kept_collection,
            progress=self._progress,
            pause_point=work.pause_point,
        )
        observing.plan(detector, scan=scan, distrust=self._options.full)

    def _begin_applying(self, work: Work) -> None:
        """The brake, then the point from which the mirror changes."""
        catalog = work.catalog
        work.pause_point()
        catalog.begin_first_load()
        removals, approved = brake.check(catalog, self._options.max_delete or self._job.max_delete, self._job.name)
        epoch.write(catalog, work.target, work.run)
        with catalog.database.transaction():
            catalog.runs.add_counts(work.run, plan_counts(catalog) | content.NOTHING_BROUGHT)
            catalog.runs.update(
                work.run, state="applying", removals=0 if approved or self._options.max_delete else removals
            )
            if approved:
                brake.use_approval(catalog)

    def _apply(self, work: Work, view: View, kept_collection: int) -> None:
        job, keeping = self._job, find_keeping(self._job.extras, view.root)
        with self._stage("lift", work):
            lift(work)
        with self._stage("place", work):
            place(work)
        with work.catalog.database.transaction():
            work.catalog.runs.update(work.run, state="filling")
        with self._stage("content", work), content.make_executor(work, self._executor) as pool:
            sources = Sources(
                view=keeping.by_id(view),
                keeping=keeping,
                transfers=[chosen.registration.create(chosen.options) for chosen in job.transfers],
                executor=pool,
                workers=job.workers,
                unreadable=Unreadable(kept_collection=kept_collection, max_stale_ns=int(job.max_stale_seconds * 1e9)),
            )
            content.compare(work, sources)
            content.deliver(work, sources)
        with self._stage("attributes", work):
            finish_objects(work)
            finish_directories(work)

    def _executor(self) -> Executor:
        chosen = self._job.executor
        return chosen.registration.create(chosen.options, self._job.workers)

    def _finish(self, work: Work, outcome: Outcome) -> None:
        """Verify, then commit: the run is a point in time."""
        catalog, number = work.catalog, work.run
        with self._stage("verify", work):
            damage = verify_run(catalog, work.target, self._job.verifiers, number)
        with self._stage("commit", work):
            catalog.end_first_load()
            runfile.write(catalog, work.target, number)
            with catalog.database.transaction():
                work.count_refused()
                name_new(catalog, number)
                without = catalog.objects.count_without_content()
                if without:
                    catalog.runs.add_counts(number, {"files_without_content": without})
                catalog.listings.keep_seen()
                collecting.use_up(catalog, number, self._job.racy_seconds)
                catalog.hints.restart_captured(State.FAILED, time.time_ns())
                run = catalog.runs.get(number)
                assert run is not None
                if run.scan:
                    catalog.meta.put(following.SCOPE, catalog.meta.get(_SCOPE_SEEN))
                catalog.plan.clear()
                catalog.runs.update(number, state="committed", finished_ns=time.time_ns())
        codes = [EXIT_DONE]
        if damage or run.counts.get(f"not_held_{MISSING}"):
            codes.append(EXIT_DAMAGE)
        if catalog.runs.problem_count(number):
            codes.append(EXIT_SOURCE_ERRORS)
        if run.gap:
            codes.append(EXIT_GAP)
        outcome.state, outcome.exit_code = "committed", combined_exit_code(codes)

    @contextlib.contextmanager
    def _stage(self, name: str, work: Work) -> Iterator[None]:
        started = time.monotonic()
        before = work.catalog.runs.get(work.run)
        yield
        after = work.catalog.runs.get(work.run)
        assert before is not None and after is not None
        counts = {key: count - before.counts.get(key, 0) for key, count in after.counts.items()}
        self._plugins.stage_finished(
            StageFinished(
                job=self._job.name,
                run=work.run,
                stage=name,
                seconds=time.monotonic() - started,
                counts={key: count for key, count in counts.items() if count},
            )
        )


def plan_counts(catalog: Catalog, condition: str = "1") -> dict[str, int]:
    """How many objects the plan makes, changes and removes; of the steps that fulfil ``condition``."""
    plan = catalog.plan
    return {
        "objects_new": plan.count(f"what & {What.NEW:d} AND {condition}"),
        # What only is to be compared counts once it turns out to be different (``apply.content``).
        "objects_changed": plan.count(
            f"NOT what & {What.NEW | What.GONE:d} AND what != {What.COMPARE:d} AND {condition}"
        ),
        "objects_removed": plan.count(f"what & {What.GONE:d} AND {condition}"),
    }
