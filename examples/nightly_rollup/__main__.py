"""Sums up yesterday's sales: now, or tonight at two.

Terminal 1: fastworker start nightly_rollup.tasks
Terminal 2: python -m nightly_rollup [--tonight] [DATABASE]
"""

import random
import sqlite3
import sys
from contextlib import closing
from datetime import date, datetime, time, timedelta
from pathlib import Path

from .tasks import TABLES, roll_up


def make_sales(database: Path, day: date, count: int = 1000) -> None:
    """Invent some sales, if the database is new."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript(TABLES)
        if connection.execute("SELECT count(*) FROM sales").fetchone()[0]:
            return
        products = ("apples", "pears", "plums")
        sales = [(day.isoformat(), random.choice(products), random.randint(50, 500)) for _ in range(count)]
        connection.executemany("INSERT INTO sales VALUES (?, ?, ?)", sales)


def main(database: Path, *, tonight: bool) -> None:
    """Submit the task, and wait for it unless it is for tonight."""
    now = datetime.now().astimezone()
    yesterday = now.date() - timedelta(days=1)
    make_sales(database, yesterday)
    if tonight:
        two_o_clock = datetime.combine(now.date() + timedelta(days=1), time(2)).astimezone()
        handle = roll_up.options(eta=two_o_clock, tags=["rollup"]).submit_sync(yesterday, database)
        print(f"task {handle} is to start at {two_o_clock:%Y-%m-%d %H:%M}")
    else:
        handle = roll_up.submit_sync(yesterday, database)
        print(f"turnover of {yesterday}: {handle.result_sync(timeout=600)}")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--tonight"]
    main(Path(words[0] if words else "sales.db").absolute(), tonight="--tonight" in sys.argv)
