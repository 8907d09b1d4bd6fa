"""All tables of one catalog together."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass

from lbcore.catalog.database import Database
from lbcore.catalog.extras import Extras
from lbcore.catalog.hints import Hints
from lbcore.catalog.listings import Listings
from lbcore.catalog.meta import Meta
from lbcore.catalog.names import Names
from lbcore.catalog.objects import Objects
from lbcore.catalog.renumbered import Renumbered
from lbcore.catalog.runs import Runs
from lbcore.catalog.schema import AFTER_FIRST_LOAD
from lbcore.catalog.steps import Plan
from lbcore.errors import CatalogError


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """The tables, each with its own SQL; ``database`` gives transactions."""

    database: Database
    meta: Meta
    runs: Runs
    hints: Hints
    renumbered: Renumbered
    objects: Objects
    names: Names
    extras: Extras
    listings: Listings
    plan: Plan

    @classmethod
    def open(cls, path: bytes, *, read_only: bool = False) -> Catalog:
        """Open the catalog at ``path``; unless ``read_only`` it is made, and migrated, where needed.

        :raises CatalogError: when it is damaged, too new, or (``read_only``) not there.
        """
        if read_only and not os.path.exists(path):
            raise CatalogError(f"there is no catalog at {os.fsdecode(path)}: this job has not run yet")
        database = Database(path, read_only=read_only)
        try:
            return cls._of(database)
        except BaseException:
            database.close()
            raise

    @classmethod
    def _of(cls, database: Database) -> Catalog:
        meta = Meta(database)
        seed = meta.get("seed")
        if seed is None and not database.read_only:
            seed = secrets.randbits(62)
            with database.transaction():
                meta.put("seed", seed)
        return cls(
            database=database,
            meta=meta,
            runs=Runs(database),
            hints=Hints(database),
            renumbered=Renumbered(database),
            objects=Objects(database),
            names=Names(database),
            extras=Extras(database),
            listings=Listings(database, seed or 0),
            plan=Plan(database),
        )

    def begin_first_load(self) -> None:
        """Do without the indexes that only later runs read, when the catalog holds nothing yet."""
        if not self.objects.any():
            with self.database.transaction():
                for index in AFTER_FIRST_LOAD:
                    self.database.execute(f"DROP INDEX IF EXISTS {index}")

    def end_first_load(self) -> None:
        """Make the indexes that are missing."""
        with self.database.sorting():
            for statement in AFTER_FIRST_LOAD.values():
                self.database.execute(statement)

    def close(self) -> None:
        """Close the database."""
        self.database.close()
