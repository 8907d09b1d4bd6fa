"""The keeper ``lustre-extras``: what Lustre keeps with objects goes into the backup, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lb_lustre import extras
from lb_lustre.content import find_content
from lb_lustre.options import LustreExtrasOptions
from lb_lustre.recreate import Recreating
from lb_lustre.stubs import HsmStubs
from lbcore import _posix
from lbcore.model import ById


@dataclass(frozen=True, kw_only=True, slots=True)
class LustreExtras:
    """Keeps layouts, project ids and the states of HSM."""

    options: LustreExtrasOptions

    def applies(self, root: bytes) -> bool:
        """Whether objects have FIDs there."""
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return _posix.has_fids(fd)
        finally:
            os.close(fd)

    def read(self, path: bytes, mode: int) -> dict[str, bytes]:
        """See ``lb_lustre.extras``."""
        return extras.read(path, mode)

    def content_is_away(self, kept: Mapping[str, bytes]) -> bool:
        """Whether a file is released."""
        return extras.content_is_away(kept)

    def by_id(self, root: bytes) -> ById | None:
        """See ``lb_lustre.content``."""
        return find_content(root)

    def make(self, directory: int, name: bytes, mode: int, kept: Mapping[str, bytes]) -> list[str]:
        """See ``lb_lustre.recreate``."""
        return self._recreating().make(directory, name, mode, kept)

    def give(self, directory: int, name: bytes, mode: int, kept: Mapping[str, bytes]) -> list[str]:
        """See ``lb_lustre.recreate``."""
        return self._recreating().give(directory, name, mode, kept)

    def stubs(self, root: bytes) -> HsmStubs | None:
        """See ``lb_lustre.stubs``."""
        return HsmStubs(root, self._pool_map(), self.options) if self.options.hsm else None

    def _recreating(self) -> Recreating:
        return Recreating(self._pool_map(), self.options.lfs)

    def _pool_map(self) -> dict[bytes, bytes]:
        pool_map = dict(item.split("=", 1) for item in self.options.pool_map)
        return {os.fsencode(old): os.fsencode(new) for old, new in pool_map.items()}
