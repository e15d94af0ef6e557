"""`python -m benchmarks.tracing_rate`: how many tasks a second are left with OpenTelemetry.

One client, one control plane and one worker with one slot; in each round without any middleware, with it installed and
not configured, and with all exported over OTLP to a receiver on the same host that throws it away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from http.server import ThreadingHTTPServer
from itertools import batched
from pathlib import Path
from statistics import median
from unittest.mock import patch

from benchmarks.processes import Processes
from benchmarks.tracing import ENDPOINT, SAMPLED, Swallow
from fastworker import Client, task

WITHOUT = "BENCHMARK_WITHOUT_MIDDLEWARE"
KINDS = {
    "without": {WITHOUT: "1"},
    "not configured": {},
    "one of a hundred": SAMPLED,
    "all": {},
}
AT_ONCE = 1000
WARM_UP = 500
COMPUTING = 0.001
SETTLE = 2.0
"""Seconds between two loads, for what is still to be exported."""

if os.environ.get(WITHOUT):  # also in the worker, which imports this for its task functions
    patch("fastworker.middleware._installed", tuple).start()


@task
def nothing() -> None:
    """No work."""


@task
def compute() -> None:
    """A millisecond of a processor's time."""
    end = time.thread_time() + COMPUTING
    while time.thread_time() < end:
        pass


async def together(client: Client, count: int) -> None:
    """Submitted in as few requests as possible."""
    for handle in await client.submit_many("nothing", [()] * count):
        await handle.result(600)


async def one_by_one(_: Client, count: int) -> None:
    """Submitted by a call each, as the handlers of a web application do."""
    handles = []
    for part in batched(range(count), AT_ONCE):
        handles += await asyncio.gather(*(nothing.submit() for _ in part))
    for handle in handles:
        await handle.result(600)


async def computing(_: Client, count: int) -> None:
    """A millisecond each, submitted one by one."""
    for handle in await asyncio.gather(*(compute.submit() for _ in range(count))):
        await handle.result(600)


LOADS = {"1 ms, one by one": computing, "no-op, together": together, "no-op, one by one": one_by_one}


async def measure(url: str, tasks: int) -> dict[str, float]:
    """Tasks a second from the first submission to the last result."""
    sizes = [tasks // 5, tasks, tasks]
    async with Client(url, connect_timeout=60) as client:
        await together(client, WARM_UP)
        loads = zip(LOADS.items(), sizes, strict=True)
        return {name: await rate(load, client, size) for (name, load), size in loads}


async def rate(load: Callable[[Client, int], Awaitable[None]], client: Client, size: int) -> float:
    """Of one load."""
    await asyncio.sleep(SETTLE)
    began = time.monotonic()
    await load(client, size)
    return size / (time.monotonic() - began)


def measure_fresh(environment: dict[str, str], tasks: int) -> dict[str, float]:
    """A client, a control plane and a worker of their own."""
    with (
        tempfile.TemporaryDirectory(prefix="fw-", dir="/tmp") as folder,
        closing(Processes(Path(folder) / "log")) as processes,
    ):
        url, python = f"ipc://{folder}/s", (sys.executable, "-m")
        listening = ("--processes", "0", "--no-dashboard", "--listen", url, "--store-path", f"{folder}/store")
        processes.start(*python, "fastworker", "start", *listening, environment=environment)
        working = ("benchmarks.tracing_rate", "--url", url, "--concurrency", "1")
        processes.start(*python, "fastworker", "worker", "start", *working, environment=environment)
        client = [*python, "benchmarks.tracing_rate", "--client", url, "--tasks", str(tasks)]
        done = subprocess.run(client, env=os.environ | environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure all kinds in turns; show the medians, and of each the share that is left of what is without."""
    parser = argparse.ArgumentParser("benchmarks.tracing_rate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--tasks", type=int, default=10_000, help="in a round (default: 10,000)")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.client:
        print(json.dumps(asyncio.run(measure(said.client, said.tasks))))
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), Swallow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(said.rounds):
        for kind, environment in KINDS.items():
            exporting = endpoint if kind not in ("without", "not configured") else ""
            found[kind].append(measure_fresh({ENDPOINT: exporting, **environment}, said.tasks))
    for load in LOADS:
        print(f"{load}:")
        for kind, rounds in found.items():
            shares = [one[load] / without[load] for one, without in zip(rounds, found["without"], strict=True)]
            rates = [one[load] for one in rounds]
            print(f"  {kind:16} {median(rates):8,.0f}/s, {median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")


if __name__ == "__main__":
    main()
