"""Compare the mirror with the catalog: after a run what it changed, by ``lb verify`` everything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lbcore.catalog.catalog import Catalog
from lbcore.catalog.hints import COLLECTION
from lbcore.catalog.names import Paths
from lbcore.catalog.objects import ROOT, Row
from lbcore.config.job import Chosen
from lbcore.keeping import lacks_content
from lbcore.model import HintFlag
from lbcore.plugins.types import Damage, Expected
from lbcore.target import Target


def verify_run(catalog: Catalog, target: Target, verifiers: Sequence[Chosen[Any]], run: int) -> list[Damage]:
    """What the configured verifiers find wrong with what ``run`` changed; noted as problems of the run."""
    if not verifiers:
        return []
    numbers = sorted(catalog.objects.changed_between(run - 1, run))
    rows = (row for row in map(catalog.objects.get, numbers) if row is not None)
    damage = [found for chosen in verifiers for found in verify(catalog, target, chosen, rows)]
    with catalog.database.transaction():
        for found in damage:
            catalog.runs.add_problem(run, found.path, f"in the backup: {found.what}", counted=False)
    bring_again(catalog, {found.path for found in damage})
    return damage


def bring_again(catalog: Catalog, paths: Iterable[bytes]) -> int:
    """What is damaged in the mirror is brought by the next run. Returns how many objects that are."""
    found = {obj for path in paths if (obj := catalog.names.find(path)) is not None}
    after = (catalog.meta.get(COLLECTION) or 0) + 1
    with catalog.database.transaction():
        for row in filter(None, map(catalog.objects.get, sorted(found))):
            catalog.hints.keep(row.id, HintFlag.DAMAGED, after)
    return len(found)


def verify(catalog: Catalog, target: Target, chosen: Chosen[Any], rows: Iterable[Row]) -> Iterator[Damage]:
    """What one verifier finds wrong with these objects."""
    verifier = chosen.registration.create(chosen.options)
    yield from verifier.verify(target.tree.path, _expected(catalog, rows))


def _expected(catalog: Catalog, rows: Iterable[Row]) -> Iterator[Expected]:
    paths = Paths(catalog.names)
    for row in rows:
        for path in [b""] if row.obj == ROOT else paths.of(row.obj):
            yield Expected(
                obj=row.obj,
                path=path,
                mode=row.mode,
                uid=row.uid,
                gid=row.gid,
                size=0 if lacks_content(row.mode, row.digest) else row.size,
                mtime_ns=row.mtime_ns,
                rdev=row.rdev,
                digest=row.digest,
                link_target=row.link_target,
                extras=catalog.extras.get(row.extras),
            )
