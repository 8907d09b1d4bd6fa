"""What of an object is kept besides names, attributes and content: extended attributes, and what plugins add."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbcore import xattrs
from lbcore.config.job import Chosen
from lbcore.model import NotDelivered, TransferItem, View
from lbcore.plugins.types import ExtrasKeeper, MakesStubs, ReadsById, Stubs
from lbcore.reading import NOTHING_THERE

_AWAY = "its content is not at hand in the source (released to an archive); it was not read"


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeping:
    """The keepers of one filesystem. Can be pickled."""

    keepers: tuple[ExtrasKeeper, ...] = ()

    def read(self, path: bytes, mode: int) -> dict[str, bytes]:
        """The extras of ``path`` itself (no link is followed); nothing is opened.

        :param mode: ``st_mode``.
        :raises OSError: when something is there and cannot be read.
        """
        found = xattrs.read(path)
        for keeper in self.keepers:
            found |= keeper.read(path, mode)
        return found

    def content_is_away(self, extras: Mapping[str, bytes]) -> bool:
        """Whether reading the content would bring it back from somewhere else: it is never opened then."""
        return any(keeper.content_is_away(extras) for keeper in self.keepers)

    def by_id(self, view: View) -> View:
        """The view as its files are to be read: by id, where it is a live tree, and its filesystem can do it."""
        if view.stable:
            return view
        readers = (keeper.by_id(view.root) for keeper in self.keepers if isinstance(keeper, ReadsById))
        return dataclasses.replace(view, by_id=next(readers, None))

    def away(self, view: View, items: Sequence[TransferItem]) -> list[NotDelivered]:
        """Those of some files that nobody may open at this moment: their content is away, or that cannot be told."""
        if not self.keepers:
            return []
        found = ((item, self._hindrance(view, item)) for item in items)
        return [NotDelivered(obj=item.obj, reason=reason) for item, reason in found if reason is not None]

    def _hindrance(self, view: View, item: TransferItem) -> str | None:
        by_id = [] if view.by_id is None else [view.by_id.path(item.id)]
        for path in (*by_id, os.path.join(view.root, item.path)):
            try:
                away = any(keeper.content_is_away(keeper.read(path, item.attributes.mode)) for keeper in self.keepers)
            except OSError as error:
                if error.errno in NOTHING_THERE:
                    continue
                return f"whether its content is at hand cannot be told: {error.strerror}"
            return _AWAY if away else None
        return None  # whoever opens it says so

    def make(self, directory: int, name: bytes, mode: int, extras: Mapping[str, bytes]) -> list[str]:
        """Make an empty file (mode 0600) or directory (0700) with what is kept of it.

        :param directory: descriptor of the open directory that it is made in.
        :returns: what of it could not be made anew.
        :raises OSError: when it cannot be made at all.
        """
        for keeper in self.keepers[:1]:  # a filesystem is of one kind
            return keeper.make(directory, name, mode, extras)
        if stat.S_ISDIR(mode):
            os.mkdir(name, 0o700, dir_fd=directory)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory))
        return []

    def give(self, directory: int, name: bytes, mode: int, extras: Mapping[str, bytes]) -> list[str]:
        """The same for a directory that is there, as far as possible."""
        return [lost for keeper in self.keepers[:1] for lost in keeper.give(directory, name, mode, extras)]

    def stubs(self, root: bytes) -> Stubs | None:
        """What makes files without their content, for a restore to ``root``; None: such files are not made."""
        makers = (keeper.stubs(root) for keeper in self.keepers[:1] if isinstance(keeper, MakesStubs))
        return next(makers, None)


def find_keeping(chosen: Iterable[Chosen[Any]], root: bytes) -> Keeping:
    """The keepers of the filesystem that the directory ``root`` is on."""
    created: Iterable[ExtrasKeeper] = (one.registration.create(one.options) for one in chosen)
    return Keeping(keepers=tuple(keeper for keeper in created if keeper.applies(root)))


def lacks_content(mode: int, digest: bytes | None) -> bool:
    """Whether an object is a file whose content was never at hand: in the mirror an empty file stands for it."""
    return digest is None and stat.S_ISREG(mode)
