"""A run that follows a feed costs what changed: no statement of it goes through a table of all objects."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from typing import Any

import pytest

from lbcore.testing import MakeJob
from tests.support.changes import write
from tests.support.feed import Feed
from tests.support.running import backed_up
from tests.support.source import at, put

TABLES = ("object", "object_past", "name", "name_past", "listing")
"""With a row for each object, or more, there is or was."""
FEW = ("USING INDEX object_without_content",)
"""Indexes of a few rows of such a table."""


class Explaining(sqlite3.Connection):
    """Asks SQLite how it carries a statement out, before it does."""

    scans: set[str]

    def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:
        if re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE TABLE)", sql):
            called = {*TABLES, *(found[2] for found in re.finditer(rf"\b({'|'.join(TABLES)})\s+([a-z]+)\b", sql))}
            if sql.endswith("LIMIT 1"):
                called = set()  # a look at the first row of all
            for *_, step in super().execute("EXPLAIN QUERY PLAN " + sql, values):
                scan = re.match(r"SCAN (\w+)", step)
                every = re.search(rf"({'|'.join(TABLES)})\w* FOR IN-OPERATOR", step)
                if (scan and scan[1] in called and not step.endswith(FEW)) or every:
                    self.scans.add(sql)
        return super().execute(sql, values)

    def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
        rows = list(rows)
        if rows:
            self.execute(sql, rows[0])
        return super().executemany(sql, rows[1:])


def test_no_statement_of_a_run_that_follows_a_feed_goes_through_all_objects(
    lb_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lb_job(Feed(), detector="feed", racy_seconds=0, verify=["attributes"])
    put(job, "a/one", "a/two", "b/three", "b/c/four", "gone/five", "gone/six/seven", "stays/eight")
    os.symlink("one", at(job, "a/link"))
    os.link(at(job, "a/two"), at(job, "b/second"))
    backed_up(job)

    write(at(job, "a/one"), b"more")
    os.rename(at(job, "b/c"), at(job, "a/d"))
    os.chmod(at(job, "b/three"), 0o600)
    os.unlink(at(job, "b/second"))
    os.unlink(at(job, "a/link"))
    shutil.rmtree(at(job, "gone"))
    put(job, "new/sub/nine")
    os.link(at(job, "stays/eight"), at(job, "new/eight"))
    scans: set[str] = set()
    monkeypatch.setattr(Explaining, "scans", scans, raising=False)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Explaining, **options))
    backed_up(job)
    assert scans == set()
