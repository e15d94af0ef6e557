"""How a store of an earlier format becomes one of this format: numbered steps, in order, each in its own transaction.

A new store is made as format 1 and takes the same steps. A step is never changed once it was released: append one.
"""

from __future__ import annotations

import sqlite3
from typing import Final

SEARCHABLE: Final = """
CREATE INDEX ended_by_name ON tasks (name, state, seq, queue, rank) WHERE finished_at IS NOT NULL;
CREATE INDEX unfinished ON tasks (state, seq) WHERE finished_at IS NULL;
CREATE TABLE failures (
    seq INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, place TEXT NOT NULL, message TEXT NOT NULL
);
CREATE INDEX failure_groups ON failures (name, type, place, seq);
CREATE TABLE indexed (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
"""
"""What the search needs. The index of words is made by `fastworker_server.storage.words`, where SQLite has FTS5."""

RELATED: Final = """
ALTER TABLE tasks ADD COLUMN ties TEXT;
ALTER TABLE tasks ADD COLUMN workflow TEXT;
ALTER TABLE tasks ADD COLUMN unique_until REAL;
ALTER TABLE tasks ADD COLUMN inputs TEXT;
ALTER TABLE tasks ADD COLUMN history TEXT;
CREATE INDEX in_workflow ON tasks (workflow) WHERE workflow IS NOT NULL;
CREATE INDEX unique_for_a_time ON tasks (unique_until) WHERE unique_until IS NOT NULL;
"""
"""What ties tasks to others, and the history of their attempts."""

AUDITED: Final = """
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
    target TEXT NOT NULL
);
"""

COUNTED: Final = """
CREATE TABLE failures_counted (
    name TEXT NOT NULL, type TEXT NOT NULL, place TEXT NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (name, type, place)
) WITHOUT ROWID;
INSERT INTO failures_counted SELECT name, type, place, count(*) FROM failures GROUP BY name, type, place;
CREATE TRIGGER failure_entered AFTER INSERT ON failures BEGIN
    INSERT INTO failures_counted VALUES (new.name, new.type, new.place, 1)
        ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER failure_left AFTER DELETE ON failures BEGIN
    UPDATE failures_counted SET number = number - 1
        WHERE name = old.name AND type = old.type AND place = old.place;
    DELETE FROM failures_counted WHERE name = old.name AND type = old.type AND place = old.place AND number = 0;
END;
"""
"""How many failures there are in each group: counting 100,000 of them took 40 ms."""

STEPS: Final[tuple[str, ...]] = (SEARCHABLE, RELATED, AUDITED, COUNTED)
"""From format 1 to 2, from 2 to 3, and so on."""
FORMAT: Final = 1 + len(STEPS)


def migrate(db: sqlite3.Connection) -> None:
    """Take the steps that are still to be taken."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    for number, step in enumerate(STEPS[version - 1 :], version + 1):
        db.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;")
