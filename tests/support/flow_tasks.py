"""Task functions with limits, keys and locks, and the steps of workflows; beside `sample_tasks`."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from fastworker import Retry, UpstreamFailure, chain, current_task, task
from tests.support.journal import write_down


def _start(payload: Any = None) -> None:
    write_down("start", current_task().id, current_task().attempt, payload)


def _end(payload: Any = None) -> None:
    write_down("end", current_task().id, current_task().attempt, payload)


# ---- limits ----------------------------------------------------------------------------------------------------------


@task(rate_limit="100/s")
def hundred_a_second(n: int) -> None:
    _start(n)


@task(rate_limit="1/2s", key=lambda user, **_: user)
def one_in_two_seconds_for_each(user: str) -> None:
    _start(user)


@task(max_concurrency=3)
def three_at_once(seconds: float) -> None:
    _start()
    time.sleep(seconds)
    _end()


@task(max_concurrency=1, key=lambda user, *_: user)
async def one_at_once_for_each(user: str, seconds: float) -> None:
    _start(user)
    await asyncio.sleep(seconds)
    _end(user)


@task
def unlimited(n: int) -> None:
    _start(n)


@task
def told_to_wait(flag: str, seconds: float) -> str:
    """The first call finds the service busy, and says so for all."""
    _start(flag)
    if not Path(flag).exists():
        Path(flag).touch()
        raise Retry(after=seconds, hold=True)
    return flag


@task
def of_tenant(tenant: str, seconds: float) -> None:
    time.sleep(seconds)
    _end(tenant)


# ---- uniqueness ------------------------------------------------------------------------------------------------------


@task(unique="running")
def sync_account(account: str, flag: str | None = None) -> str:
    _start(account)
    while flag and not Path(flag).exists():
        time.sleep(0.02)
    return account


# ---- workflows -------------------------------------------------------------------------------------------------------


@task
def number(n: int, seconds: float = 0.0) -> int:
    _start(n)
    time.sleep(seconds)
    return n


@task
def plus(a: int, b: int) -> int:
    _start()
    return a + b


@task
def total(parts: list[int]) -> int:
    _start()
    return sum(parts)


@task
def broken(*_: Any) -> int:
    _start()
    raise ValueError("broken on purpose")


@task
def halve(n: int) -> int:
    _start(n)
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2


@task(on_upstream_failure="run")
def report(parts: list[int | UpstreamFailure]) -> list[str]:
    _start()
    return [f"{part.name} {part.state}: {part.message}" if isinstance(part, UpstreamFailure) else str(part)
            for part in parts]  # fmt: skip


@task(on_upstream_failure="ignore")
def total_of_the_rest(parts: list[int]) -> int:
    _start()
    return sum(parts)


@task
async def fan_out(count: int) -> int:
    """Adds children to its own workflow while it runs."""
    handles = [await number.submit(n) for n in range(count)]
    result: int = await (await total.submit(handles))
    return result


@task
def where_in(flag: str, n: int) -> int:
    """Wait for a file, then say which process it was."""
    _start(n)
    while not Path(flag).exists():
        time.sleep(0.02)
    return os.getpid()


def long_chain(first: int, steps: int) -> Any:
    """A chain that adds 1 in each step."""
    return chain(number.s(first), *(plus.s(1) for _ in range(steps)))
