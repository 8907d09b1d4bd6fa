"""The tables, as numbered migrations. A released migration is never edited: a new one is added."""

from __future__ import annotations

OBJECT_COLUMNS = "id, mode, uid, gid, size, mtime_ns, ctime_ns, rdev, mount, link_target, extras, digest, data_run"
"""What is known of an object, the same in ``object``, ``object_past`` and ``step``, in this order."""

_OBJECT = """
    id BLOB NOT NULL,             -- what the source calls it (16 bytes)
    mode INTEGER NOT NULL,        -- st_mode, kind and permissions
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,    -- the source's: tells whether to look closer
    rdev INTEGER NOT NULL,
    mount INTEGER NOT NULL,       -- 1: another filesystem was mounted here
    link_target BLOB,
    extras INTEGER,               -- row of extras; NULL: none
    digest BLOB,                  -- xxh3-128 of the content; NULL: not a file
    data_run INTEGER,             -- run that brought the present content; names the version
"""

WITHOUT_CONTENT = "digest IS NULL AND (mode & 61440) = 32768"
"""Of a row of ``object``: a regular file (S_IFMT, S_IFREG) of which the backup holds no content."""

_FIRST = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;

CREATE TABLE run (
    run INTEGER PRIMARY KEY,
    state TEXT NOT NULL,          -- observing, applying, verifying, committed, braked, failed
    scan INTEGER NOT NULL,        -- 1: observed by a scan
    resumed INTEGER NOT NULL DEFAULT 0,
    started_ns INTEGER NOT NULL,
    view_from_ns INTEGER,         -- the state it holds is that of the source at some time from here …
    view_to_ns INTEGER,           -- … to here
    finished_ns INTEGER,
    gap TEXT,                     -- why the feed could not be used
    message TEXT,
    removals INTEGER NOT NULL DEFAULT 0,
    counts TEXT NOT NULL DEFAULT '{{}}'
);

-- What the mirror holds now. Rows that a run replaces or removes move to *_past, with the last run they held in.
CREATE TABLE object (
    obj INTEGER PRIMARY KEY,
    {_OBJECT}
    first_run INTEGER NOT NULL
);
-- The columns of a key come first: else SQLite 3.40 finds fault with tables WITHOUT ROWID (PRAGMA integrity_check).
CREATE TABLE object_past (
    obj INTEGER NOT NULL,
    last_run INTEGER NOT NULL,
    {_OBJECT}
    first_run INTEGER NOT NULL,
    PRIMARY KEY (obj, last_run)
) WITHOUT ROWID;

CREATE TABLE name (
    parent INTEGER NOT NULL,
    name BLOB NOT NULL,
    obj INTEGER NOT NULL,
    first_run INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE TABLE name_past (
    parent INTEGER NOT NULL,
    name BLOB NOT NULL,
    last_run INTEGER NOT NULL,
    obj INTEGER NOT NULL,
    first_run INTEGER NOT NULL,
    PRIMARY KEY (parent, name, last_run)
) WITHOUT ROWID;
CREATE INDEX name_past_obj ON name_past (obj);

-- Extended attributes and what plugins keep: equal sets are stored once.
CREATE TABLE extras (extras INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, data BLOB NOT NULL);

-- A directory whose listing in the source was, by this fingerprint, exactly what the catalog holds.
CREATE TABLE listing (obj INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL);

-- Objects to be looked at; a row stays until a run has used it.
CREATE TABLE hint (
    id BLOB PRIMARY KEY,
    flags INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    collection INTEGER NOT NULL,  -- the collection that touched it last
    since_ns INTEGER NOT NULL     -- waits to be captured since
) WITHOUT ROWID;

-- The plan of the open run: one row for each object that changes, with the state it is to have.
CREATE TABLE step (
    obj INTEGER PRIMARY KEY,
    {_OBJECT}
    what INTEGER NOT NULL,        -- steps.What
    state INTEGER NOT NULL,       -- steps.State
    old_depth INTEGER,            -- of the deepest name it leaves; NULL: it leaves none
    depth INTEGER,                -- of the deepest name it gets before the content phase; NULL: none
    arrived BLOB                  -- where its new content lies, relative to the stage
);
CREATE UNIQUE INDEX step_id ON step (id);
CREATE INDEX step_old_depth ON step (old_depth, obj) WHERE old_depth IS NOT NULL;
CREATE INDEX step_depth ON step (depth, obj) WHERE depth IS NOT NULL;
CREATE TABLE step_name (
    gained INTEGER NOT NULL,      -- 1: a name to be made, 0: one that goes
    parent INTEGER NOT NULL,
    name BLOB NOT NULL,
    obj INTEGER NOT NULL,
    PRIMARY KEY (gained, parent, name)
) WITHOUT ROWID;
CREATE INDEX step_name_obj ON step_name (obj);

-- Fingerprints seen by the open run; they become ``listing`` rows when it commits.
CREATE TABLE seen_listing (obj INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL);
-- Names of a directory that is listed in parts.
CREATE TABLE seen_name (parent INTEGER NOT NULL, name BLOB NOT NULL, PRIMARY KEY (parent, name)) WITHOUT ROWID;
-- Directories the open run wrote in: their own attributes are set again at the end.
CREATE TABLE written_directory (obj INTEGER PRIMARY KEY);

CREATE TABLE problem (
    run INTEGER NOT NULL,
    path BLOB NOT NULL,
    reason TEXT NOT NULL,
    counted INTEGER NOT NULL,     -- 1: makes the exit status 3
    PRIMARY KEY (run, path)
) WITHOUT ROWID;
"""

_INDEXES = """
CREATE INDEX name_obj ON name (obj);
CREATE INDEX object_past_last_run ON object_past (last_run);
CREATE INDEX name_past_last_run ON name_past (last_run);
"""

AFTER_FIRST_LOAD = {
    "object_id": "CREATE UNIQUE INDEX IF NOT EXISTS object_id ON object (id)",
    "object_first_run": "CREATE INDEX IF NOT EXISTS object_first_run ON object (first_run)",
    "name_first_run": "CREATE INDEX IF NOT EXISTS name_first_run ON name (first_run)",
}
"""Indexes that the first run does without and makes at its end: sorting them once is faster than growing them."""

_RENUMBERED = """
-- What the source calls otherwise now; a row stays until a run has used it.
CREATE TABLE renumbered (
    old BLOB PRIMARY KEY,
    new BLOB NOT NULL,
    collection INTEGER NOT NULL,
    seen INTEGER NOT NULL         -- what the open run saw of the old id (renumbered.Old)
) WITHOUT ROWID;
CREATE INDEX renumbered_new ON renumbered (new);
"""

_WITHOUT_CONTENT = f"""
-- Files whose content was never at hand: few, and counted by each run.
CREATE INDEX object_without_content ON object (obj) WHERE {WITHOUT_CONTENT};
"""

_RUN_VIEW = """
ALTER TABLE run ADD COLUMN snapshot TEXT;       -- name of the one that it reads; NULL: the live tree, or none yet
ALTER TABLE run ADD COLUMN collection INTEGER;  -- number of its last collection
ALTER TABLE run ADD COLUMN cut_ns INTEGER NOT NULL DEFAULT 0;  -- up to when its hints tell, by the feed's clock
UPDATE run SET collection = (SELECT value FROM meta WHERE key = 'collection'),
    cut_ns = coalesce((SELECT value FROM meta WHERE key = 'cut_ns'), 0);
DELETE FROM meta WHERE key = 'cut_ns';
"""

MIGRATIONS: tuple[str, ...] = (
    _FIRST + _INDEXES + ";\n".join(AFTER_FIRST_LOAD.values()) + ";\n",
    _RENUMBERED,
    _WITHOUT_CONTENT,
    _RUN_VIEW,
)
"""Migration N brings a database from ``user_version`` N to N + 1."""
