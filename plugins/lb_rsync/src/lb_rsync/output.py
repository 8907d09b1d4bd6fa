"""Reads what rsync prints: a line for each file sent, and messages that say what failed."""

from __future__ import annotations

import errno
import re
from collections import deque
from dataclasses import dataclass

FORMAT = b"lb %C %l %b %n"
"""``--out-format``: digest, size, bytes sent, name; the name, which may hold anything, is last."""

_LINE = re.compile(rb"lb ([0-9a-f]{32}) [0-9]+ ([0-9]+) (.+)", re.DOTALL)
_ESCAPE = re.compile(rb"\\#([0-3][0-7]{2})")
_MESSAGE = re.compile(
    rb'(?:rsync: )?(?:\[(?P<who>\w+)\] )?[^"]*"(?P<path>.*)"(?P<rest>[^"]*)', re.IGNORECASE | re.DOTALL
)
_UNVERIFIED = re.compile(rb"ERROR: (?P<path>.*) failed verification -- update .*", re.DOTALL)
_ERROR_NUMBER = re.compile(rb"(?:.*: )?(?P<text>[^:]+) \((?P<number>[0-9]+)\)", re.DOTALL)
_TEMPORARY = re.compile(rb"\.(.+)\.[A-Za-z0-9]{6}", re.DOTALL)

_FILE_ERRORS = frozenset(
    {
        errno.EEXIST,
        errno.EFBIG,
        errno.EILSEQ,
        errno.EINVAL,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOMEM,  # rsync 3.5.0: more than about a thousand folders deep
        errno.ENOTDIR,
    }
)
"""What a target may have against one file; any other error there is the target's, and stops the run."""

_LAST_LINES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A file that rsync has sent. Whether it arrived is another question."""

    path: bytes
    """Relative to the view's root."""
    digest: bytes
    """xxh3-128 of what was sent, in the order of bytes that ``xxhash`` calls canonical."""
    sent_bytes: int


def unescape(text: bytes) -> bytes:
    r"""A name as it was before rsync wrote some of its bytes as ``\#ooo``.

    rsync escapes the backslash of a name's own ``\#ooo``, so that every one in its output is an escape.
    """
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), text)


def parse_line(line: bytes) -> Sent | None:
    """What a line of standard output says of a file; None for any other line."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    digest = bytes.fromhex(match[1].decode())
    if not any(digest):
        # rsync says by zeros that it could not read all of the file; it will try it once more.
        return None
    return Sent(path=unescape(match[3]), digest=digest, sent_bytes=int(match[2]))


class Messages:
    """Remembers why files failed. Its size is that of the batch, whatever rsync prints."""

    def __init__(self, root: bytes, folder: bytes, names: frozenset[bytes]) -> None:
        """``names``: the paths of the batch, relative to ``root``."""
        self._root = root.rstrip(b"/") + b"/"
        self._folder = folder.rstrip(b"/") + b"/"
        self._names = names
        self._reasons: dict[bytes, str] = {}
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self.target: str | None = None
        """The first message that says that the target cannot be written."""

    def add(self, line: bytes) -> None:
        """Take note of a line of standard error."""
        text = line.decode("utf-8", "backslashreplace")
        if text:
            self._last.append(text)
        if match := _UNVERIFIED.fullmatch(line):
            self._reasons.setdefault(unescape(match["path"]), "what arrived is not what was sent")
        elif match := _MESSAGE.fullmatch(line):
            self._add_message(unescape(match["path"]), match["rest"], match["who"] or b"", text)

    def _add_message(self, path: bytes, rest: bytes, who: bytes, text: str) -> None:
        error = _ERROR_NUMBER.fullmatch(rest)
        number = int(error["number"]) if error else 0
        reason = error["text"].strip().decode("utf-8", "backslashreplace") if error else ""
        if path.startswith(self._root) and who.lower() in (b"sender", b""):
            name = path[len(self._root) :]
            if name in self._names:
                self._reasons.setdefault(name, reason or "vanished before it was read")
        elif (path + b"/").startswith(self._folder):
            if number and number not in _FILE_ERRORS:
                self.target = self.target or text
            name = self._final(path[len(self._folder) :])
            self._reasons.setdefault(name, f"the target refused it: {reason}")

    def _final(self, path: bytes) -> bytes:
        """The name that a temporary file of rsync, ``.NAME.`` and six letters, was to get."""
        head, slash, name = path.rpartition(b"/")
        match = _TEMPORARY.fullmatch(name)
        return head + slash + match[1] if match else path

    def reason(self, path: bytes) -> str | None:
        """Why the file at ``path``, or a folder that it was to go into, failed; None when it was not said."""
        while path:
            if path in self._reasons:
                return self._reasons[path]
            path = path.rpartition(b"/")[0]
        return None

    @property
    def last(self) -> str:
        """The last lines, for the message of an error."""
        return "\n".join(self._last) or "it printed no message"
