"""`python -m benchmarks.tracing`: the processor time that OpenTelemetry adds to a task.

Each kind is measured in a process of its own, around a submission and a run that do nothing; what is exported goes over
OTLP to a receiver that throws it away. Without any middleware, both cost nothing of this.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import Any

from fastworker.context import CurrentTask
from fastworker.middleware import active_middleware, around_run, around_submit
from fastworker.protocol import Submission
from fastworker.tasks import new_task_id

TASKS = 20_000
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
KINDS = {
    "installed, not configured": {ENDPOINT: ""},
    "on, one of a hundred sampled": {
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    },
    "on": {"OTEL_TRACES_SAMPLER": "always_on"},
}


class Swallow(BaseHTTPRequestHandler):
    """Takes everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


async def submit_once() -> Submission:
    """As a client does."""
    submission = Submission(new_task_id(), "noop", "[]")
    middleware = active_middleware()
    if middleware:
        await around_submit(middleware, _nothing)([submission])
    return submission


def run_once(submissions: Sequence[Submission]) -> Callable[[], Awaitable[Any]]:
    """As a worker does, which asks once which middleware there is; with what travelled with the task."""
    middleware, following = active_middleware(), cycle(submissions)

    async def run() -> None:
        task = next(following)
        if middleware:
            await around_run(middleware, _nothing)(CurrentTask(task.id, task.name, 1, task.headers))

    return run


async def _nothing(_: Sequence[Submission] | CurrentTask) -> None: ...


def microseconds(call: Callable[[], Awaitable[Any]]) -> float:
    """Processor time of one call, with what its process does for it in other threads."""

    async def all_of_them() -> None:
        for _ in range(TASKS):
            await call()

    began = time.process_time()
    asyncio.run(all_of_them())
    for layer in active_middleware():
        layer.flush()
    return (time.process_time() - began) / TASKS * 1e6


def measure() -> None:
    """In the process of a kind."""
    submissions = asyncio.run(submit_some(1000))  # imports and opens what is needed
    print(json.dumps([microseconds(submit_once), microseconds(run_once(submissions))]))


async def submit_some(count: int) -> list[Submission]:
    """What a worker gets."""
    return [await submit_once() for _ in range(count)]


def main() -> None:
    """Measure all kinds and print them."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Swallow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = {ENDPOINT: f"http://127.0.0.1:{server.server_address[1]}"}
    for kind, environment in KINDS.items():
        command = [sys.executable, "-m", "benchmarks.tracing", "measure"]
        done = subprocess.run(
            command, env=os.environ | endpoint | environment, capture_output=True, text=True, check=True
        )
        submitting, running = json.loads(done.stdout)
        print(f"{kind}: {submitting:.1f} µs for a submission, {running:.1f} µs for a run")


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
