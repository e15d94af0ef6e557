"""The task: sum up the sales of one day.

A task can run twice: its worker may die after the work and before the report. So this one is written to be repeated:
its rows have a key (day and product), it replaces them, and it does so in one transaction.
"""

import sqlite3
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path

from fastworker import task

TABLES = """
CREATE TABLE IF NOT EXISTS sales (day TEXT, product TEXT, cents INTEGER);
CREATE TABLE IF NOT EXISTS daily_totals (
    day TEXT, product TEXT, sales INTEGER, cents INTEGER, PRIMARY KEY (day, product)
);
"""

ROLL_UP = """
REPLACE INTO daily_totals (day, product, sales, cents)
SELECT day, product, count(*), sum(cents) FROM sales WHERE day = ? GROUP BY day, product
"""


@task(retries=8, backoff="exponential", retry_on=sqlite3.OperationalError, timeout=600, queue="nightly")
def roll_up(day: date, database: Path) -> Decimal:
    """Sum up one day; returns its turnover. A database that is locked is tried again later."""
    with closing(sqlite3.connect(database, timeout=1.0)) as connection, connection:
        connection.execute(ROLL_UP, [day.isoformat()])
        found = connection.execute("SELECT sum(cents) FROM daily_totals WHERE day = ?", [day.isoformat()])
        return Decimal(found.fetchone()[0] or 0) / 100
