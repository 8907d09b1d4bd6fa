"""The command line and the environment that rsync is run with."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lb_rsync.options import RsyncOptions
from lb_rsync.output import FORMAT

_SCRUBBED = ("RSYNC_", "LC_", "CVSIGNORE", "LANG", "POSIXLY_CORRECT")
"""Beginnings of names of variables that would change what rsync does or prints."""


def command(options: RsyncOptions, *, root: bytes, folder: bytes, tree: bytes, deltas: bool) -> tuple[bytes, ...]:
    """The argument vector; names come on standard input, each ended by a zero byte.

    ``root`` is the view, ``folder`` the destination, ``tree`` the mirror; all are absolute paths. ``deltas``:
    the mirror holds an earlier state of some of the files.
    """
    arguments = [
        os.fsencode(options.program),
        b"--files-from=-",
        b"--from0",
        # Equal size and time do not prove equal content: nothing is skipped. It also keeps --copy-dest from
        # taking the mirror's file for the new one: that is only where blocks are taken from.
        b"--ignore-times",
        # Only files are sent: the receiver makes directories as it needs them, and a link that has taken the
        # place of a directory is not sent as one.
        b"--no-implied-dirs",
        b"--no-dirs",
        # Without --perms a file with a basis gets the basis' mode, set-uid bit included.
        b"--perms",
        b"--chmod=F600,D700",
        b"--sparse",
        # A digest without salt, so that the one of the line is the content's (rsyncd.conf(5), %C).
        b"--checksum-choice=xxh128",
        b"--out-format=" + FORMAT,
        # Not L: with a line buffer rsync does not notice that nobody reads any more, and an rsync whose lb was
        # killed at once would go on to the end of the batch.
        b"--outbuf=N",
        # With it each line is escaped in one piece, and only where it must be. Without it rsync converts
        # names in pieces, and a name's own \#123 on a seam would come out as if it were an escape.
        b"--8-bit-output",
        # One process writes to standard error, so that lines are not mixed.
        b"--stderr=client",
    ]
    if options.whole_file is not None:
        arguments.append(b"--whole-file" if options.whole_file else b"--no-whole-file")
    if deltas and not options.whole_file:
        arguments.append(b"--copy-dest=" + tree)
    if options.bandwidth_limit:
        arguments.append(b"--bwlimit=" + options.bandwidth_limit.encode())
    # The slash: the folder's content, not the folder.
    return (*arguments, b"--", root.rstrip(b"/") + b"/", folder)


def environment(inherited: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """``inherited`` without what would change rsync's behaviour or language."""
    scrubbed = tuple(name.encode() for name in _SCRUBBED)
    kept = {name: value for name, value in inherited.items() if not name.startswith(scrubbed)}
    # rsync reads aliases of its options from ~/.popt (popt(3)).
    return kept | {b"LC_ALL": b"C", b"HOME": b"/nonexistent"}
