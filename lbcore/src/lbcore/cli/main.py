"""``lb``: the group of all commands, and the one place where errors become messages and exit statuses."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any

import click

from lbcore import __version__
from lbcore.cli.context import Lb
from lbcore.cli.lazy import LazyGroup
from lbcore.cli.table import COMMANDS
from lbcore.cli.text import printable_message
from lbcore.errors import LbError

EXIT_INTERRUPTED = 130


class MainGroup(LazyGroup):
    """Turns what a command returns or raises into the exit status of the process."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; nothing but click's own exceptions leaves this method."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            status = _report(ctx, "interrupted", EXIT_INTERRUPTED)
        except LbError as exc:
            status = _report(ctx, str(exc), exc.exit_code)
        except BrokenPipeError as exc:
            # Only a reader of our output who has seen enough is no error (as in `lb ls | head`).
            status = 1 if _stdout_is_closed() else _report(ctx, _os_message(exc), 1)
        except OSError as exc:
            status = _report(ctx, _os_message(exc), 1)
        except Exception as exc:
            # The last resort: a fault of lb. The status says that it failed, the message how to see more.
            status = _report(ctx, _unexpected(exc), 1)
        if isinstance(status, int) and status:
            ctx.exit(int(status))
        return status


def _report(ctx: click.Context, message: str, status: int) -> int:
    if ctx.params.get("debug"):
        import traceback  # noqa: PLC0415 - only for this

        traceback.print_exc()
    for line in printable_message(message).splitlines() or [""]:
        print(f"lb: {line}", file=sys.stderr)
    return status


def _os_message(exc: OSError) -> str:
    if exc.strerror is None:
        return str(exc) or type(exc).__name__
    files = (exc.filename, exc.filename2)
    names = " -> ".join(os.fsdecode(name) for name in files if isinstance(name, str | bytes))
    space = " (make room there, then run lb again)" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{names}: {exc.strerror}{space}" if names else f"{exc.strerror}{space}"


def _unexpected(exc: Exception) -> str:
    sqlite3 = sys.modules.get("sqlite3")
    if sqlite3 is not None and isinstance(exc, sqlite3.Error):
        return f"the database failed: {exc} ('lb --debug' shows where)"
    return f"unexpected {type(exc).__name__}: {exc} ('lb --debug' shows where; please report it)"


def _stdout_is_closed() -> bool:
    """Whether nobody reads our output any more; asked of the pipe, as no buffer remembers it."""
    try:
        descriptor = sys.stdout.fileno()
    except OSError:
        return False
    pipe = select.poll()
    pipe.register(descriptor, select.POLLOUT)
    closed = any(event & (select.POLLERR | select.POLLHUP) for _, event in pipe.poll(0))
    if closed:
        # The interpreter flushes once more when it ends: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return closed


@click.group(name="lb", cls=MainGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--config", "config_file", metavar="FILE", help="Configuration file.")
@click.option("--disable", metavar="NAME", multiple=True, help="Do not load this plugin (repeatable).")
@click.option("--debug", is_flag=True, help="Show where an error came from.")
@click.version_option(__version__, prog_name="lb")
@click.pass_context
def main(ctx: click.Context, config_file: str | None, disable: tuple[str, ...], debug: bool) -> None:
    """Incremental backups of filesystems too large to scan.

    The configuration is the file given with -c, else $LB_CONFIG, else /etc/lb/lb.toml, else
    ~/.config/lb/lb.toml.

    Exit status: 0 done; 1 failed; 2 wrong use or configuration; 3 done, but something of the source
    could not be read; 4 damage found; 5 done by a scan, as the feed had a gap; 6 stopped by the
    brake; 11 another run holds the lock; 75 paused. Any other is a failure.
    """
    lb = ctx.ensure_object(Lb)
    lb.config_file = config_file
    lb.disabled = disable
    lb.debug = debug
