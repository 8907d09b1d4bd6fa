"""Does this catalog belong to this tree? Both carry the same random name and the last run that applied to them."""

from __future__ import annotations

import os
import secrets

from lbcore.catalog.catalog import Catalog
from lbcore.errors import CatalogError
from lbcore.target import LB, Target

_FILE = b"epoch"
_KEY = "epoch"
_RUN_KEY = "applied_run"


def name(catalog: Catalog) -> str:
    """The random name that a catalog and its tree share, in hexadecimal digits."""
    name: str = catalog.meta.get(_KEY)
    return name


def check_there(catalog_path: bytes, target_path: bytes) -> None:
    """Refuse to make an empty catalog for a target that has had one.

    :raises CatalogError: when the catalog of a backup is gone.
    """
    try:
        there = os.stat(catalog_path).st_size > 0
    except FileNotFoundError:
        there = False
    if not there and os.path.lexists(os.path.join(target_path, LB, _FILE)):
        raise CatalogError(
            f"{os.fsdecode(target_path)} holds a backup, but its catalog {os.fsdecode(catalog_path)} is gone. Bring "
            "back the one that belongs to it, or begin with an empty target"
        )


def check(catalog: Catalog, target: Target) -> None:
    """Refuse a catalog that belongs to another tree, or to another state of this one.

    :raises CatalogError: when the two do not belong together.
    """
    try:
        check_pair(catalog, target.path)
    except FileNotFoundError:
        if not catalog.meta.get(_RUN_KEY) and not os.listdir(target.tree.fd):
            with catalog.database.transaction():
                catalog.meta.put(_KEY, catalog.meta.get(_KEY) or secrets.token_hex(16))
            write(catalog, target, 0)
            return
        raise CatalogError(
            f"{os.fsdecode(target.path)}/tree holds something, and nothing says that it belongs to this catalog "
            f"({os.fsdecode(catalog.database.path)}); use an empty target, or bring back the .lb folder it came with"
        ) from None


def check_pair(catalog: Catalog, target_path: bytes) -> None:
    """Compare what the tree and the catalog carry; in a transaction, where a run may be at work.

    :raises CatalogError: when the two do not belong together.
    :raises FileNotFoundError: when the tree carries nothing.
    """
    name, run = catalog.meta.get(_KEY), catalog.meta.get(_RUN_KEY) or 0
    with open(os.path.join(target_path, LB, _FILE), encoding="ascii") as file:
        tree_name, tree_run = file.read().split()
    # The tree is written first: between the two a crash leaves it one run ahead, with nothing applied.
    opened = catalog.runs.open()
    expected = {str(run), str(opened.run) if opened else str(run)}
    if tree_name != name or tree_run not in expected:
        raise CatalogError(
            f"the tree {os.fsdecode(target_path)} (state {tree_name[:8]}/{tree_run}) and the catalog "
            f"{os.fsdecode(catalog.database.path)} (state {(name or 'none')[:8]}/{run}) do not belong together: one of "
            "them was rolled back or replaced. Bring back the other one of the pair, or begin with an empty target"
        )


def write(catalog: Catalog, target: Target, run: int) -> None:
    """Run ``run`` is about to apply: say so in the tree, durably, and in the catalog."""
    path = os.path.join(target.path, LB, _FILE)
    with open(path + b".new", "w", encoding="ascii") as file:
        file.write(f"{catalog.meta.get(_KEY)} {run}\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + b".new", path)
    os.fsync(target.lb.fd)
    with catalog.database.transaction():
        catalog.meta.put(_RUN_KEY, run)
