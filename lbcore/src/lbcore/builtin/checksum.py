"""Verifier ``checksum``: is the content what was brought?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from lbcore.beneath import Root
from lbcore.copying import digest_of
from lbcore.plugins.types import Damage, Expected


class Checksum:
    """Reads every file and compares its digest with the catalog's."""

    def verify(self, tree: bytes, objects: Iterable[Expected]) -> Iterator[Damage]:
        """Read the regular files among ``objects``."""
        with Root(tree) as root:
            for expected in objects:
                if stat.S_ISREG(expected.mode) and expected.digest is not None:
                    yield from _check(root, expected)


def _check(root: Root, expected: Expected) -> Iterator[Damage]:
    try:
        fd = root.open(expected.path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        yield Damage(path=expected.path, what=f"is missing ({error.strerror})")
        return
    except OSError as error:
        yield Damage(path=expected.path, what=f"cannot be read ({error.strerror})")
        return
    try:
        if digest_of(fd) != expected.digest:
            yield Damage(path=expected.path, what="has other content than was brought")
    except OSError as error:
        yield Damage(path=expected.path, what=f"cannot be read ({error.strerror})")
    finally:
        os.close(fd)
