"""Which part of the source a job covers: exclude and include patterns in gitignore syntax."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pathspec


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The patterns of a job. As in gitignore, nothing below an excluded directory can be included again."""

    exclude: Sequence[str] = ()
    """gitignore lines."""
    include: Sequence[str] = ()
    """gitignore lines that bring back what ``exclude`` took: each counts as a ``!`` line after them."""
    one_filesystem: bool = False
    """Leave out what is on another filesystem than the source's root; the mount points stay, empty."""

    @functools.cached_property
    def _spec(self) -> pathspec.GitIgnoreSpec | None:
        if not self.exclude:
            return None
        import pathspec  # noqa: PLC0415 - 20 ms that a job without patterns need not pay

        return pathspec.GitIgnoreSpec.from_lines([*self.exclude, *(f"!{line}" for line in self.include)])

    @property
    def all(self) -> bool:
        """True when nothing is excluded by a pattern."""
        return self._spec is None

    def excludes(self, path: bytes, is_directory: bool) -> bool:
        """Whether ``path`` (relative to the source) is left out, given that its parent is not."""
        spec = self._spec
        if spec is None:
            return False
        # Patterns become regular expressions, in which a newline is not like other characters.
        text = os.fsdecode(path).replace("\n", "\udc0a")
        return spec.match_file(text + "/" if is_directory else text)

    @functools.cached_property
    def by_path(self) -> bool:
        """True when a pattern depends on more than base names: a rename may take things in or out."""
        return any("/" in line.strip().rstrip("/") for line in (*self.exclude, *self.include))

    @functools.cached_property
    def fingerprint(self) -> int:
        """64 bits that change when the covered part may change."""
        words = repr((tuple(self.exclude), tuple(self.include), self.one_filesystem))
        return int.from_bytes(hashlib.blake2b(os.fsencode(words), digest_size=8).digest(), "big")

    def fingerprint_of(self, path: bytes) -> int:
        """The same for what is in the directory ``path``."""
        if not self.by_path:
            return self.fingerprint
        return self.fingerprint ^ int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "big")
