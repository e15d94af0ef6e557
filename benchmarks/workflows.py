"""`python -m benchmarks.workflows`: how long a chain and a group with a join take, through real processes."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.processes import Processes
from fastworker import Client, chain, group, task


@task
async def one() -> int:
    """The first step."""
    return 1


@task
async def add_one(number: int) -> int:
    """Each further step."""
    return number + 1


@task
async def total(numbers: list[int]) -> int:
    """The join."""
    return sum(numbers)


async def timed(name: str, expected: int, submit: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    """Seconds until all is stored, and until the result is there."""
    began = time.monotonic()
    handle = await submit()
    stored = time.monotonic() - began
    result = await handle.result(600)
    assert result == expected, f"{name}: {result} instead of {expected}"
    return {"name": name, "submitted": stored, "ended": time.monotonic() - began}


async def measure(url: str, steps: int, parts: int) -> list[dict[str, Any]]:
    """A chain of so many steps, and a group of so many parts with a join."""
    async with Client(url, connect_timeout=60):
        await (await one.submit()).result(60)
        line = chain(one.s(), *(add_one.s() for _ in range(steps - 1)))
        crowd = group([one.s() for _ in range(parts)]).then(total.s())
        return [
            await timed(f"chain of {steps:,}", steps, line.submit),
            await timed(f"group of {parts:,} with a join", parts, crowd.submit),
        ]


def main() -> None:
    """Start a control plane and a worker, measure, print."""
    parser = argparse.ArgumentParser("benchmarks.workflows", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chain", type=int, default=1000, help="steps of the chain (default: 1,000)")
    parser.add_argument("--group", type=int, default=10_000, help="parts of the group (default: 10,000)")
    parser.add_argument("--json", action="store_true", help="for a program")
    said = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="fw-", dir="/tmp") as folder,
        closing(Processes(Path(folder) / "log")) as processes,
    ):
        url = f"ipc://{folder}/s"
        fastworker = (sys.executable, "-m", "fastworker")
        processes.start(*fastworker, "start", "--processes", "0", "--listen", url, "--store-path", f"{folder}/store")
        processes.start(*fastworker, "worker", "start", "benchmarks.workflows", "--url", url, "--concurrency", "4")
        found = asyncio.run(measure(url, said.chain, said.group))
    for figure in found if not said.json else ():
        print(f"{figure['name']}: stored after {figure['submitted']:.2f} s, ended after {figure['ended']:.2f} s")
    if said.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
