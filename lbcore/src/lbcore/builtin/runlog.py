"""A log file per run, ``.lb/log/N.log``: when each stage ended, what it did, and every warning."""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from lbcore.events import RunFinished, RunStarted, StageFinished

_log = logging.getLogger(__name__)


class _RunFile(logging.FileHandler):
    """A log that cannot be written is said once; it does not stop a backup."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Called where writing a line failed, in the handling of that error."""
        failed = sys.exc_info()[1]
        logging.getLogger("lbcore").removeHandler(self)
        self.setLevel(logging.CRITICAL + 1)
        _log.warning("%s: cannot be written: %s", self.baseFilename, failed)

    def close(self) -> None:
        """What could not be written before cannot be written now."""
        with contextlib.suppress(OSError):
            super().close()


class RunLog:
    """Observes runs; one file handler per open run."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, int], logging.Handler] = {}

    def started(self, event: RunStarted) -> None:
        """Open the file; a run that goes on appends to it."""
        path = os.path.join(event.lb_folder, b"log", b"%d.log" % event.run)
        handler = _RunFile(os.fsdecode(path), encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._handlers[event.job, event.run] = handler
        logging.getLogger().addHandler(handler)  # plugins warn under names of their own
        logger = logging.getLogger("lbcore")
        logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
        self._write(event.job, event.run, "goes on" if event.resumed else "started")

    def stage(self, event: StageFinished) -> None:
        """A line for the stage."""
        counts = " ".join(f"{name}={count}" for name, count in event.counts.items())
        self._write(event.job, event.run, f"{event.stage} {event.seconds:.2f} s {counts}".rstrip())

    def finished(self, event: RunFinished) -> None:
        """The result; close the file."""
        counts = " ".join(f"{name}={count}" for name, count in event.counts.items())
        self._write(event.job, event.run, f"{event.state} status={event.exit_code} {counts} {event.message}".rstrip())
        handler = self._handlers.pop((event.job, event.run), None)
        if handler is not None:
            logging.getLogger().removeHandler(handler)
            handler.close()

    def _write(self, job: str, run: int, message: str) -> None:
        handler = self._handlers.get((job, run))
        if handler is not None:
            record = logging.LogRecord("lbcore", logging.INFO, "", 0, f"{job} run {run}: {message}", None, None)
            handler.handle(record)
