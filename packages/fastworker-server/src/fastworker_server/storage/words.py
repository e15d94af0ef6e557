"""The index of words: what stands in arguments and errors, by trigrams, written a little at a time behind the commits.

`arguments` grows in the order of submissions up to a mark; what lies beyond the mark is searched row by row. Errors
are few: they are entered before anybody searches. The words of one that is no failure any more stay until its task is
deleted or fails again: without its row in `failures` nobody finds it, and to take them out takes longer than all else
that a retry does. Without positions (`detail = none`) the index takes half the time and space; it gives candidates,
which the search then looks at.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from pydantic_core import to_json

LONGEST_TEXT: Final = 2000
"""Characters of the arguments and of an error's message that can be searched."""
AT_ONCE: Final = 200
"""Rows that are entered in one go: 2 to 4 ms, for which a commit may have to wait."""

MOST_TRIGRAMS: Final = 4
"""Of a word that are looked up: each more costs more than it weeds out."""

_TABLES: Final = """
CREATE VIRTUAL TABLE IF NOT EXISTS arguments USING fts5 (text, tokenize = 'trigram', detail = none);
CREATE VIRTUAL TABLE IF NOT EXISTS errors USING fts5 (text, tokenize = 'trigram', detail = none);
"""
_FAILED: Final = f"""
INSERT INTO failures
SELECT seq, name, coalesce(json_extract(error, '$.type'), ''), coalesce(json_extract(error, '$.place'), ''),
    substr(coalesce(json_extract(error, '$.message'), ''), 1, {LONGEST_TEXT})
FROM tasks WHERE state = 'failed' AND finished_at IS NOT NULL AND seq IN (SELECT value FROM json_each(?))
"""
_NO_FAILURES: Final = "DELETE FROM failures WHERE seq IN (SELECT value FROM json_each(?))"


def prepare(db: sqlite3.Connection) -> bool:
    """Make the tables; False if this SQLite can't index trigrams (FTS5, 3.34)."""
    try:
        db.executescript(_TABLES)
    except sqlite3.OperationalError:
        return False
    return True


def candidates(word: str) -> str:
    """The query for rows that have those trigrams of a word that are probably the rarest: those with digits."""
    trigrams = dict.fromkeys(word[at : at + 3] for at in range(len(word) - 2))
    rarest = sorted(trigrams, key=lambda trigram: -sum(map(str.isdigit, trigram)))[:MOST_TRIGRAMS]
    return " ".join('"' + trigram.replace('"', '""') + '"' for trigram in rarest)


def mark(db: sqlite3.Connection) -> int:
    """Up to which sequence number the arguments are in the index."""
    found = db.execute("SELECT seq FROM indexed WHERE name = 'arguments'").fetchone()
    return found[0] if found else 0


def enter_arguments(db: sqlite3.Connection) -> bool:
    """Enter the next few tasks; False if there was none. Inside a transaction."""
    after = mark(db)
    last = db.execute(
        "SELECT max(seq) FROM (SELECT seq FROM tasks WHERE seq > ? ORDER BY seq LIMIT ?)", (after, AT_ONCE)
    ).fetchone()[0]
    if last is None:
        return False
    db.execute(
        "INSERT INTO arguments (rowid, text) SELECT seq, name || ' ' || substr(args, 1, ?) FROM tasks "
        "WHERE seq > ? AND seq <= ?",
        (LONGEST_TEXT, after, last),
    )
    db.execute("REPLACE INTO indexed VALUES ('arguments', ?)", (last,))
    return True


def enter_failures(db: sqlite3.Connection, seqs: Iterable[int], *, with_words: bool) -> None:
    """Bring the table of failures up to date for these tasks. Inside a transaction."""
    some = _array(seqs)
    db.execute(_NO_FAILURES, some)
    db.execute(_FAILED, some)
    if with_words:
        db.execute(
            "REPLACE INTO errors (rowid, text) SELECT seq, type || ' ' || message || ' ' || place FROM failures "
            "WHERE seq IN (SELECT value FROM json_each(?))",
            some,
        )


def take_out_failures(db: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Of these tasks, none of which is a failure any more. Inside a transaction."""
    db.execute(_NO_FAILURES, _array(seqs))


def missed_failures(db: sqlite3.Connection) -> list[int]:
    """Tasks that failed, or were queued again, just before the process was killed."""
    return [
        row[0]
        for row in db.execute(
            "SELECT seq FROM tasks WHERE state = 'failed' AND finished_at IS NOT NULL EXCEPT SELECT seq FROM failures "
            "UNION ALL SELECT f.seq FROM failures f LEFT JOIN tasks t ON t.seq = f.seq WHERE t.state IS NOT 'failed'"
        )
    ]


def forget(db: sqlite3.Connection, seqs: Iterable[int], *, with_words: bool) -> None:
    """Take tasks out of all tables. Inside a transaction."""
    some = _array(seqs)
    db.execute(_NO_FAILURES, some)
    if with_words:
        db.execute("DELETE FROM arguments WHERE rowid IN (SELECT value FROM json_each(?))", some)
        db.execute("DELETE FROM errors WHERE rowid IN (SELECT value FROM json_each(?))", some)


def _array(seqs: Iterable[int]) -> tuple[str]:
    return (to_json(list(seqs)).decode(),)
