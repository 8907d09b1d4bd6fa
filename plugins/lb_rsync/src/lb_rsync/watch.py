"""Proves that what rsync read by name is the file that was observed."""

from __future__ import annotations

import errno
import stat

from lbcore import _posix
from lbcore.beneath import Root
from lbcore.copying import digest_of
from lbcore.model import NotDelivered, TransferItem
from lbcore.reading import ChangedError, failure, unchanged

_REPLACED = (errno.ELOOP, errno.ENOTDIR)
"""What opening says when a component of the path is no directory any more."""


class Watch:
    """The source of one batch.

    rsync opens files by path and follows a symbolic link that has taken a directory's place, out of the view
    too. So the directories are looked at before it starts, and the file and its directories once it has read:
    all without following a link. In a live tree a directory may have been swapped and put back in between; a
    rename changes its ctime, and then the content is read again, through descriptors that cannot stray.
    """

    def __init__(self, root: Root, *, stable: bool) -> None:
        """``stable``: nothing can change in the view."""
        self._root = root
        self._stable = stable
        self._at_start: dict[bytes, tuple[bytes, int]] = {}
        self._failed: dict[bytes, OSError] = {}
        self._quiet: dict[bytes, bool] = {}

    def refusal(self, item: TransferItem) -> NotDelivered | None:
        """Why rsync must not be given this item; None when its directory is really below the root."""
        path = item.path
        if path.startswith(b"/") or not {b"", b".", b".."}.isdisjoint(path.split(b"/")) or b"\0" in path:
            return NotDelivered(obj=item.obj, reason="not a path below the source")
        directory = path.rpartition(b"/")[0]
        if directory not in self._at_start and directory not in self._failed:
            try:
                for above in _directories(path):
                    if above not in self._at_start:
                        self._at_start[above] = self._state(above)
            except OSError as error:
                self._failed[directory] = error
        return _not_delivered(item, self._failed[directory]) if directory in self._failed else None

    def _state(self, directory: bytes) -> tuple[bytes, int]:
        fields = _posix.look(self._root.directory(directory), b"")
        return fields[0], fields[7]

    def look_again(self) -> None:
        """Forget what was seen: rsync has read more files since."""
        if not self._stable:
            self._root.forget()
            self._quiet.clear()

    def problem(self, item: TransferItem, digest: bytes | None = None) -> NotDelivered | None:
        """Why what was read cannot be taken for the item's content; None when it can.

        ``digest`` is that of what was read, xxh3-128; without it only the file itself is looked at.
        """
        try:
            self._check(item)
            if digest is not None and not self._is_quiet(item.path) and self._read_again(item) != digest:
                raise ChangedError
        except (ChangedError, OSError) as error:
            return _not_delivered(item, error)
        return None

    def _check(self, item: TransferItem) -> None:
        dirfd, name = self._root.parent(item.path)
        _, mode, _, _, _, size, mtime_ns, ctime_ns, _, _ = _posix.look(dirfd, name)
        then = item.attributes
        if (size, mtime_ns, ctime_ns) != (then.size, then.mtime_ns, then.ctime_ns) or not stat.S_ISREG(mode):
            raise ChangedError

    def _is_quiet(self, path: bytes) -> bool:
        """No directory on the way was renamed or written in since before rsync started."""
        if self._stable:
            return True
        for directory in _directories(path):
            if directory not in self._quiet:
                self._quiet[directory] = self._state(directory) == self._at_start[directory]
            if not self._quiet[directory]:
                return False
        return True

    def _read_again(self, item: TransferItem) -> bytes:
        with unchanged(self._root, item) as fd:
            return digest_of(fd)


def _directories(path: bytes) -> list[bytes]:
    """The directories that ``path`` goes through below the root, the deepest last."""
    parts = path.split(b"/")[:-1]
    return [b"/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _not_delivered(item: TransferItem, error: ChangedError | OSError) -> NotDelivered:
    if isinstance(error, OSError) and error.errno in _REPLACED:
        error = ChangedError()
    return failure(item, error)
