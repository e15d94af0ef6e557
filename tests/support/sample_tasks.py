"""The task functions of the tests with real processes. Each cluster gets a copy as its `tasks.py`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from fastworker import Backoff, Retry, TaskTimeout, current_task, task
from tests.support.journal import write_down


def _start(payload: Any = None) -> None:
    current = current_task()
    write_down("start", current.id, current.attempt, payload)


def _end(payload: Any = None) -> None:
    current = current_task()
    write_down("end", current.id, current.attempt, payload)


# ---- ordinary work ---------------------------------------------------------------------------------------------------


@task
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@task
async def add_async(a: int, b: int) -> int:
    return a + b


@task
def echo(value: Any = None) -> Any:
    return value


@task
def work(payload: str) -> str:
    """Write down that it ran, and answer with something that only this payload has."""
    _start(payload)
    return f"done:{payload}"


@task
async def work_async(payload: str) -> str:
    _start(payload)
    return f"done:{payload}"


@task
def nap(seconds: float, payload: Any = None) -> Any:
    _start(payload)
    time.sleep(seconds)
    _end(payload)
    return payload


@task
async def nap_async(seconds: float, payload: Any = None) -> Any:
    _start(payload)
    await asyncio.sleep(seconds)
    _end(payload)
    return payload


@task
def where() -> int:
    """The process that runs this."""
    return os.getpid()


@task
def typed(when: datetime, key: UUID, price: Decimal, blob: bytes) -> tuple[datetime, UUID, Decimal, bytes]:
    assert (type(when), type(key), type(price), type(blob)) == (datetime, UUID, Decimal, bytes)
    return when, key, price, blob


@task
def wait_for_file(path: str) -> str:
    """Say how far it is, then go on once the file is there."""
    _start()
    current = current_task()
    current.progress(0.4, "resizing")
    current.log("first line")
    current.log("[red]second line[/red]")
    while not Path(path).exists():
        time.sleep(0.02)
    return "seen"


@task
def in_parts(path: str) -> Iterator[dict[str, int]]:
    """Yield two parts, and the third once the file is there."""
    yield {"part": 0}
    yield {"part": 1}
    while not Path(path).exists():
        time.sleep(0.02)
    yield {"part": 2}


@task
def many_parts(count: int) -> Iterator[int]:
    yield from range(count)


# ---- failures and retries --------------------------------------------------------------------------------------------


@task
def fail(message: str = "no luck") -> None:
    _start(message)
    raise ValueError(message)


@task(retries=5, backoff=0.1)
def flaky(succeeds_at: int) -> int:
    """Succeed at the given attempt."""
    _start()
    if current_task().attempt < succeeds_at:
        raise RuntimeError("not yet")
    return current_task().attempt


@task(retries=3, backoff=Backoff(kind="exponential", base=0.2, jitter=False))
def always_fails() -> None:
    _start()
    raise RuntimeError("never")


@task(retries=5, backoff=0.05, give_up_on=KeyError)
def gives_up() -> None:
    _start()
    raise KeyError("hopeless")


@task
def again_later(times: int) -> int:
    """Ask to be run again without using up a retry."""
    _start()
    if current_task().attempt <= times:
        raise Retry(after=0.05)
    return current_task().attempt


@task(acks="early")
def dies_early() -> None:
    _start()
    os.kill(os.getpid(), signal.SIGKILL)


@task
def dies() -> None:
    _start()
    os.kill(os.getpid(), signal.SIGKILL)


# ---- time limits and cancellation ------------------------------------------------------------------------------------


@task(timeout=0.3)
def too_slow() -> None:
    _start()
    while True:
        time.sleep(0.01)


@task(timeout=0.3)
async def too_slow_async() -> None:
    _start()
    await asyncio.sleep(60)


@task(timeout=0.3)
async def cleans_up_async() -> None:
    _start()
    try:
        await asyncio.sleep(60)
    finally:
        _end()


@task(timeout=0.3)
def cleans_up() -> str:
    try:
        while True:
            time.sleep(0.01)
    except TaskTimeout:
        return "cleaned up"


@task
def polite() -> str:
    """A blocking function that looks whether it should stop."""
    _start()
    while not current_task().cancelled:
        time.sleep(0.01)
    _end()
    return "stopped by itself"


# ---- tasks that submit tasks -----------------------------------------------------------------------------------------


@task
async def parent_async(n: int) -> int:
    handles = [await add.submit(i, i) for i in range(n)]
    return sum([await handle for handle in handles])


@task
def parent(n: int) -> int:
    handles = [add.submit_sync(i, i) for i in range(n)]
    return sum(handle.result_sync(timeout=20) for handle in handles)


# ---- oddities --------------------------------------------------------------------------------------------------------


class Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("needs two arguments, and holds a lambda")
        self.function = lambda: (a, b)

    def __reduce__(self) -> Any:
        raise TypeError("can't be pickled")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class NotAnOrdinaryError(BaseException):
    pass


@task
def odd(kind: str) -> Any:
    """Do something that no task should do."""
    match kind:
        case "unpicklable":
            raise Unpicklable(1, 2)
        case "unprintable":
            raise Unprintable
        case "unencodable":
            raise ValueError("a lone surrogate \ud800, a zero \0 and an escape \x1b[31m")
        case "base exception":
            raise NotAnOrdinaryError("not an Exception")
        case "sys.exit":
            sys.exit(3)
        case "keyboard interrupt":
            raise KeyboardInterrupt
        case "generator exit":
            raise GeneratorExit
        case "stop iteration":
            raise StopIteration
        case "recursion":
            return odd(kind)
        case "memory":
            raise MemoryError
        case "huge message":
            raise ValueError("x" * 5_000_000)
        case "not json":
            return object()
        case "not a number":
            return float("nan")
        case "cycle":
            cycle: list[Any] = []
            cycle.append(cycle)
            return cycle
        case "surrogate result":
            return "\ud800"
        case "huge result":
            return "x" * 9_000_000
        case "large result":
            return "x" * 7_000_000
        case "chdir":
            os.chdir("/")
        case "close standard output":
            os.close(1)
        case "print":
            print("x" * 1_000_000)
        case "fork":
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
        case "umask":
            os.umask(0o777)
        case "signal handler":
            os.kill(os.getpid(), signal.SIGUSR2)
    return kind


@task
async def odd_async(kind: str) -> Any:
    match kind:
        case "sys.exit":
            sys.exit(3)
        case "keyboard interrupt":
            raise KeyboardInterrupt
        case "base exception":
            raise NotAnOrdinaryError("not an Exception")
        case "cancels itself":
            raise asyncio.CancelledError
        case "stop iteration":
            raise StopIteration
        case "swallows":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "swallowed the cancellation"
    return kind
