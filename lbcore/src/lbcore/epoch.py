"""Does this catalog belong to this tree? Both carry the same random name and the last run that applied to them."""

from __future__ import annotations

import os
import secrets

from lbcore.catalog.catalog import Catalog
from lbcore.errors import CatalogError
from lbcore.target import LB, Target

_KEY = "epoch"
_RUN_KEY = "applied_run"


def check(catalog: Catalog, target: Target) -> None:
    """Refuse a catalog that belongs to another tree, or to another state of this one.

    :raises CatalogError: when the two do not belong together.
    """
    path = os.path.join(target.path, LB, b"epoch")
    name, run = catalog.meta.get(_KEY), catalog.meta.get(_RUN_KEY) or 0
    try:
        with open(path, encoding="ascii") as file:
            tree_name, tree_run = file.read().split()
    except FileNotFoundError:
        if run == 0 and not os.listdir(target.tree.fd):
            with catalog.database.transaction():
                catalog.meta.put(_KEY, name or secrets.token_hex(16))
            write(catalog, target, 0)
            return
        raise CatalogError(
            f"{os.fsdecode(target.path)}/tree holds something, and nothing says that it belongs to this catalog "
            f"({os.fsdecode(catalog.database.path)}); use an empty target, or bring back the .lb folder it came with"
        ) from None
    # The tree is written first: between the two a crash leaves it one run ahead, with nothing applied.
    opened = catalog.runs.open()
    expected = {str(run), str(opened.run) if opened else str(run)}
    if tree_name != name or tree_run not in expected:
        raise CatalogError(
            f"the tree {os.fsdecode(target.path)} (state {tree_name[:8]}/{tree_run}) and the catalog "
            f"{os.fsdecode(catalog.database.path)} (state {(name or 'none')[:8]}/{run}) do not belong together: one of "
            "them was rolled back or replaced. Bring back the other one of the pair, or begin with an empty target"
        )


def write(catalog: Catalog, target: Target, run: int) -> None:
    """Run ``run`` is about to apply: say so in the tree, durably, and in the catalog."""
    path = os.path.join(target.path, LB, b"epoch")
    with open(path + b".new", "w", encoding="ascii") as file:
        file.write(f"{catalog.meta.get(_KEY)} {run}\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + b".new", path)
    os.fsync(target.lb.fd)
    with catalog.database.transaction():
        catalog.meta.put(_RUN_KEY, run)
