"""Tasks that say something while they run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Generator, Iterator
from datetime import date, timedelta
from pathlib import Path

from fastworker import current_task, task


@task
def days(count: int, pause: float = 0.0) -> Generator[date, None, str]:
    for number in range(count):
        yield date(2026, 1, 1) + timedelta(days=number)
        time.sleep(pause)
    return "all"


def may_go_on(number: int, reader: str | None) -> bool:
    """Whether a reader, who adds a byte to its file for each thousand parts, is less than 5,000 parts behind."""
    return reader is None or number % 1000 != 0 or number - 1000 * Path(reader).stat().st_size < 5000


@task
def count(up_to: int, reader: str | None = None) -> Iterator[int]:
    for number in range(up_to):
        while not may_go_on(number, reader):
            time.sleep(0.001)
        yield number


@task
async def count_async(up_to: int, reader: str | None = None) -> AsyncIterator[int]:
    for number in range(up_to):
        while not may_go_on(number, reader):  # noqa: ASYNC110 - the reader is another process
            await asyncio.sleep(0.001)
        yield number


@task(run_in="process")
def count_in_process(up_to: int, reader: str | None = None) -> Iterator[int]:
    yield from count(up_to, reader)


@task
def stumble() -> Iterator[int]:
    yield 1
    raise LookupError("stumbled")


@task(log_prints=True)
def talk(seconds: float) -> None:
    logging.getLogger("shop").info("a record")
    print("a printed line")
    current_task().progress(3, 10, "resizing")
    time.sleep(seconds)


@task(run_in="process", log_prints=True)
def talk_in_process(seconds: float) -> None:
    logging.getLogger("shop").info("a record")
    print("a printed line")
    current_task().progress(3, 10, "resizing")
    time.sleep(seconds)


@task
def keep_quiet() -> None:
    print("not for the log")


@task(log_prints=True)
def babble(lines: int) -> None:
    for number in range(lines):
        print("line", number)


@task(run_in="process", log_prints=True)
def babble_in_process(lines: int) -> None:
    for number in range(lines):
        print("line", number)
