"""`python -m benchmarks.tls`: what TLS costs, against plain TCP on the same host: client and worker both go over it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.processes import Processes
from fastworker import Client, task
from fastworker.keys import Key

SCHEMES = ("tcp", "tls+tcp")
WARM_UP = 500


@task
async def nothing() -> None:
    """No work."""


async def measure(url: str, round_trips: int, tasks: int) -> dict[str, float]:
    """Milliseconds from a submission to its result, one after the other; and tasks a second, all at once."""
    async with Client(url, connect_timeout=60) as client:
        for handle in await client.submit_many("nothing", [()] * WARM_UP):
            await handle.result(60)
        taken = [await round_trip() for _ in range(round_trips)]
        began = time.monotonic()
        for handle in await client.submit_many("nothing", [()] * tasks):
            await handle.result(600)
        rate = tasks / (time.monotonic() - began)
    cuts = quantiles(taken, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "tasks": rate}


async def round_trip() -> float:
    """One, in milliseconds."""
    began = time.perf_counter()
    await (await nothing.submit()).result(60)
    return (time.perf_counter() - began) * 1000


def measure_fresh(scheme: str, round_trips: int, tasks: int) -> dict[str, float]:
    """A control plane and a worker of their own, for one measurement."""
    with (
        tempfile.TemporaryDirectory(prefix="fw-", dir="/tmp") as folder,
        closing(Processes(Path(folder) / "log")) as processes,
    ):
        url, local = f"{scheme}://127.0.0.1:{_free_port()}", f"ipc://{folder}/s"
        fastworker = (sys.executable, "-m", "fastworker")
        processes.start(
            *fastworker, "start", "--processes", "0", "--no-dashboard", "--insecure", "--listen", url,
            "--listen", local, "--store-path", f"{folder}/store",
        )  # fmt: skip
        processes.start(*fastworker, "worker", "start", "benchmarks.tls", "--url", url, "--concurrency", "4")
        return asyncio.run(measure(url, round_trips, tasks))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def main() -> None:
    """Measure both in turns, show the medians and how much more TLS takes."""
    parser = argparse.ArgumentParser("benchmarks.tls", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--round-trips", type=int, default=2000, help="in a round (default: 2,000)")
    parser.add_argument("--tasks", type=int, default=20_000, help="in a round (default: 20,000)")
    parser.add_argument("--json", action="store_true", help="for a program")
    said = parser.parse_args()
    os.environ["FASTWORKER_KEY"] = Key.new().text
    found: dict[str, list[dict[str, float]]] = {scheme: [] for scheme in SCHEMES}
    for _ in range(said.rounds):
        for scheme in SCHEMES:
            found[scheme].append(measure_fresh(scheme, said.round_trips, said.tasks))
    print(json.dumps(found) if said.json else _table(found))


def _table(found: dict[str, list[Any]]) -> str:
    middle = {
        scheme: {figure: median(one[figure] for one in rounds) for figure in rounds[0]}
        for scheme, rounds in found.items()
    }
    lines = [
        f"{scheme:8} round trip p50 {of['p50']:.2f} ms, p95 {of['p95']:.2f}, p99 {of['p99']:.2f}; {of['tasks']:,.0f}/s"
        for scheme, of in middle.items()
    ]
    plain, tls = (middle[scheme] for scheme in SCHEMES)
    time_more, tasks_left = tls["p50"] / plain["p50"], tls["tasks"] / plain["tasks"]
    return "\n".join([*lines, f"TLS: {time_more:.2f} times the round trip, {tasks_left:.2f} times the tasks a second"])


if __name__ == "__main__":
    main()
