"""``lb lustre gate FILESYSTEM``: all that the key of a backup's node may do on the MGS and the MDSs.

sshd runs it in place of what was asked for (``command="…",restrict`` in authorized_keys) and hands that over in
``SSH_ORIGINAL_COMMAND``. It is cut into words here, by a grammar that knows no quoting; no shell ever sees it. What is
one of the forms below is run as it is; everything else is refused. Both are logged (syslog, facility authpriv).
"""

from __future__ import annotations

import os
import re
import sys
import syslog
from collections.abc import Sequence

from lb_lustre.errors import LustreError
from lb_lustre.server import PARAMETERS

REFUSED = 126
"""Exit status of what was refused; none of ``lctl``'s."""
_ENVIRONMENT = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin", "LC_ALL": "C"}
_KEPT = ("HOME", "USER", "LOGNAME")
"""What the tools need that ``lctl snapshot_*`` reaches the other servers by."""

Form = tuple[str, ...]
"""A command that may be run: a regular expression for each word."""

_FILESYSTEM = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,7}"
_SNAPSHOT = r"lb-[A-Za-z0-9._-]{1,200}"
_USER = r"lb[A-Za-z0-9_-]{0,13}"


def forms(filesystem: str) -> tuple[Form, ...]:
    """What may be run for one filesystem. Only snapshots and changelog users whose names begin with ``lb`` are touched.

    :raises ValueError: when that is no name of a filesystem.
    """
    if not re.fullmatch(_FILESYSTEM, filesystem):
        raise ValueError(f"{filesystem!r} is no name of a Lustre filesystem")
    of = ("-F", filesystem)
    one = (*of, "-n", _SNAPSHOT)
    mdt = rf"{filesystem}-MDT[0-9a-f]{{4}}"
    return (
        ("lctl", "snapshot_list", *of),
        ("lctl", "snapshot_create", *one, "-t", r"[0-9]{1,4}"),
        ("lctl", "snapshot_create", *one, "-boff"),
        ("lctl", "snapshot_mount", *one),
        ("lctl", "snapshot_umount", *one),
        ("lctl", "snapshot_destroy", *one),
        ("lctl", "snapshot_destroy", *one, "-f"),
        ("lctl", "get_param", *(rf"mdd\.{mdt}\.changelog_{name}" for name in PARAMETERS)),
        ("lctl", "get_param", rf"mdt\.{mdt}\.num_exports", rf"mdt\.{mdt}\.exports\.\*\.open_files"),
        ("lctl", "--device", mdt, "changelog_register", "-u", _USER, "-m", r"\+?[A-Za-z]+(,[+-]?[A-Za-z]+)*"),
        ("lctl", "--device", mdt, "changelog_deregister", rf"cl[0-9]{{1,9}}-{_USER}"),
    )


def gate(line: str, allowed: Sequence[Form]) -> list[str]:
    """The words of a command line that is allowed: separated by one space each, and nothing but that.

    :raises LustreError: for every other one.
    """
    words = line.split(" ")
    for form in allowed:
        if len(form) == len(words) and all(map(re.fullmatch, form, words)):
            return words
    raise LustreError(f"refused: {line!r} is none of the commands that this key may run")


def serve(filesystem: str) -> int:
    """Become the command that was asked for, or say why not; returns the status of what cannot be run."""
    asked = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    syslog.openlog("lb-lustre-gate", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    try:
        words = gate(asked, forms(filesystem))
    except (LustreError, ValueError) as error:
        syslog.syslog(syslog.LOG_WARNING, str(error)[:500])
        print(f"lb lustre gate: {error}", file=sys.stderr)
        return REFUSED
    syslog.syslog(syslog.LOG_INFO, f"runs {asked!r}")
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        os.execvpe(words[0], words, {**kept, **_ENVIRONMENT})  # noqa: S606 - that there is no shell is the point
    except OSError as error:
        print(f"lb lustre gate: {words[0]} cannot be run: {error.strerror}", file=sys.stderr)
        return 1
