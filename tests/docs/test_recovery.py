"""What ``docs/recovery.md`` tells to do by hand leads to the right files."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path

from lbcore.testing import MakeJob
from tests.support.commands import back_up

PAGE = Path(__file__).resolve().parents[2] / "docs" / "recovery.md"


def test_the_query_finds_each_earlier_content_with_its_path(lb_job: MakeJob) -> None:
    job = lb_job(max_delete="100%")
    source = Path(os.fsdecode(job.source))
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_text("first")
    (source / "a/gone").write_text("gone")
    (source / "same").write_text("same")
    back_up(job)
    (source / "a/b/file").write_text("second")
    (source / "a").rename(source / "c")
    back_up(job)
    (source / "c/gone").unlink()
    (source / "c/b/file").write_text("third")
    os.link(source / "same", source / "same-too")
    back_up(job)

    (query,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with contextlib.closing(sqlite3.connect(os.fsdecode(job.lb) + "/job.db")) as database:
        rows = database.execute(query).fetchall()
    versions = Path(os.fsdecode(job.lb), "versions")
    assert [(path, run, (versions / file).read_text()) for file, run, path in rows] == [
        ("/a/b/file", 1, "first"),
        ("/c/b/file", 2, "second"),
        ("/c/gone", 2, "gone"),
    ]
    assert len(rows) == sum(path.is_file() for path in versions.rglob("*"))
