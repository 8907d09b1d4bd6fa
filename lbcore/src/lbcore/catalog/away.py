"""The steps of files whose content is away in the source (see ``lbcore.away``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from lbcore.catalog.database import Database
from lbcore.catalog.extras import unpack
from lbcore.catalog.steps import Step, What

_FILES = f"(mode & {0o170000:d}) = {0o100000:d} AND NOT what & {What.GONE:d}"


class AwaySteps:
    """Finds them by their extras, of which there are far fewer than files."""

    def __init__(self, database: Database, is_away: Callable[[Mapping[str, bytes]], bool]) -> None:
        """
        :param is_away: says it of an object's extras.
        """
        self._database = database
        database.execute("CREATE TEMP TABLE IF NOT EXISTS away_extras (extras INTEGER PRIMARY KEY)")
        database.execute("DELETE FROM away_extras")
        sql = (
            f"SELECT extras, data FROM extras WHERE extras IN (SELECT extras FROM step WHERE {_FILES}) AND extras > ? "
        )
        for page in database.pages(sql + "ORDER BY extras LIMIT ?", (0,), 1_000, slice(0, 1)):
            away = [(number,) for number, data in page if is_away(unpack(data))]
            database.execute_many("INSERT INTO away_extras VALUES (?)", away)

    def all(self, page_rows: int = 10_000) -> Iterator[Step]:
        """Each of them that is to have, or might lack, content."""
        sql = (
            f"SELECT * FROM step WHERE obj > ? AND {_FILES} AND extras IN (SELECT extras FROM away_extras) "
            f"AND (what & {What.DATA | What.COMPARE:d} OR digest IS NULL) ORDER BY obj LIMIT ?"
        )
        for page in self._database.pages(sql, (0,), page_rows, slice(0, 1)):
            yield from map(Step._make, page)

    def want_what_came_back(self) -> None:
        """Files that the catalog knows without content, and whose content is not away any more, get it."""
        self._database.execute(
            f"UPDATE step SET what = (what & ~{What.COMPARE:d}) | {What.DATA:d} WHERE {_FILES} AND digest IS NULL "
            f"AND NOT what & {What.NEW:d} AND (extras IS NULL OR extras NOT IN (SELECT extras FROM away_extras))"
        )
