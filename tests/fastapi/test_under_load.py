"""An application under steady load while its control plane is killed and started again. `--full` plays it longer."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

import httpx
import pytest

from tests.fastapi.web import WebServer
from tests.support.cluster import Cluster
from tests.support.waiting import until

PATIENCE = 5.0
SLACK = 2.0
"""Seconds beyond the patience that a request may take on a busy machine, before it counts as hung."""

WEB = f"""
import time
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastworker.integrations.fastapi import ControlPlaneAway, FastWorkerMiddleware
from tasks import work_async

app = FastAPI()
app.add_middleware(FastWorkerMiddleware, patience={PATIENCE})


@app.post("/work/{{payload}}")
async def submit(payload: str):
    began = time.perf_counter()
    try:
        task_id = await work_async.submit(payload)
    except ControlPlaneAway:
        task_id = None
    answer = {{"id": task_id, "ms": (time.perf_counter() - began) * 1000}}
    return JSONResponse(answer, 200 if task_id else 503)
"""


@dataclass(frozen=True)
class Reply:
    """How one request ended.

    Attributes:
        task: the id, if it was accepted.
        ms: how long the handler waited for that or for the refusal.
        whole_ms: from the request to the answer, as the browser sees it.
    """

    status: int
    task: str | None
    ms: float
    whole_ms: float


async def load(web: WebServer, rate: int, seconds: float) -> list[Reply]:
    """Ask so many times a second, whether there are answers or not."""

    async def ask(http: httpx.AsyncClient, number: int) -> Reply:
        began = time.perf_counter()
        answer = await http.post(f"/work/{number}")
        body = answer.json()
        return Reply(answer.status_code, body["id"], body["ms"], (time.perf_counter() - began) * 1000)

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=web.url, timeout=60, limits=limits) as http:
        asking = []
        began = time.monotonic()
        for number in range(round(rate * seconds)):
            asking.append(asyncio.create_task(ask(http, number)))
            await asyncio.sleep(max(0.0, began + (number + 1) / rate - time.monotonic()))
        return await asyncio.gather(*asking)


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_a_restart_of_the_control_plane_hangs_no_request_and_loses_no_task(
    cluster: Cluster, request: pytest.FixtureRequest
) -> None:
    full = request.config.getoption("--full")
    rate, seconds = (200, 60.0) if full else (200, 8.0)
    control_plane = await asyncio.to_thread(cluster.start, "--processes", "0")
    await asyncio.to_thread(cluster.worker)
    web = await asyncio.to_thread(WebServer, cluster, WEB)
    loading = asyncio.create_task(load(web, rate, seconds))
    for _ in range(5 if full else 1):
        await asyncio.sleep(2.0)
        control_plane.kill()
        control_plane = await asyncio.to_thread(cluster.start, "--processes", "0")
    replies = await loading
    print(
        f"{len(replies)} requests, {sum(reply.status == 200 for reply in replies)} accepted, "
        f"longest in the handler {max(reply.ms for reply in replies):.0f} ms, "
        f"as a whole {max(reply.whole_ms for reply in replies):.0f} ms"
    )
    assert max(reply.whole_ms for reply in replies) < (PATIENCE + SLACK) * 1000
    assert {reply.status for reply in replies} <= {200, 503}
    accepted = [reply.task for reply in replies if reply.task is not None]
    assert len(accepted) > len(replies) / 4
    await asyncio.to_thread(await_success, cluster, accepted)


def await_success(cluster: Cluster, accepted: list[str]) -> None:
    """Each of them has succeeded in the end."""
    for task_id in accepted:
        cluster.client.result(task_id, timeout=60)
    until(lambda: cluster.client.stats().states["running"] == 0, 30, "rest")


@pytest.mark.full
async def test_submitting_in_a_handler_takes_at_most_a_millisecond(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.start)
    web = await asyncio.to_thread(WebServer, cluster, WEB)
    await load(web, 100, 2)
    replies = await load(web, 100, 10)
    p50, whole = (statistics.median(times) for times in zip(*((r.ms, r.whole_ms) for r in replies), strict=True))
    print(f"submit in a handler at 100 requests/s: p50 {p50:.2f} ms of the {whole:.2f} ms that a request takes")
    assert p50 <= 1.0
