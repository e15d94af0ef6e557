"""Task functions for process slots: they die in every way there is."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time

from fastworker import TaskTimeout, current_task, task


@task(run_in="process")
def process_add(a: int, b: int) -> int:
    return a + b


@task(run_in="process")
def process_where() -> int:
    return os.getpid()


@task(run_in="process")
async def process_async(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@task(run_in="process")
def process_die(how: str) -> None:
    match how:
        case "SIGSEGV":
            ctypes.string_at(0)
        case "os._exit":
            os._exit(3)
        case name:
            os.kill(os.getpid(), signal.Signals[name])
            time.sleep(10)


@task(run_in="process", memory_limit="200 MB")
def process_eat(megabytes: int, then: float = 5.0) -> int:
    eaten = [b"\1" * 1024 * 1024 for _ in range(megabytes)]
    time.sleep(then)
    return len(eaten)


@task(run_in="process")
def process_nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@task(run_in="process")
def process_clean_up() -> str:
    try:
        time.sleep(20)
    except TaskTimeout:
        return "cleaned up"
    return "slept"


@task(run_in="process")
def process_deaf(seconds: float) -> str:
    """Does not end when it is told to."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            time.sleep(0.05)
        except TaskTimeout:
            continue
    return "deaf"


@task(run_in="process")
def process_raise() -> None:
    raise LookupError("as asked")


@task(run_in="process")
def process_exit() -> None:
    sys.exit(4)


@task(run_in="process")
def process_fork() -> str:
    """A copy of the process comes back from here too."""
    return "parent" if os.fork() else "child"


@task(run_in="process")
def process_talk() -> None:
    current_task().progress(0.5, "half")
    current_task().log("a line")
    time.sleep(20)


@task(run_in="process")
def process_grow(megabytes: int) -> int:
    _kept.append(b"\1" * megabytes * 1024 * 1024)
    return os.getpid()


_kept: list[bytes] = []


@task(run_in="process")
def process_large(size: int) -> str:
    return "\\" * size


@task
def thread_noop() -> None:
    """The measure of what a process costs."""


@task(run_in="process")
def process_noop() -> None:
    """Nothing, in a process."""
