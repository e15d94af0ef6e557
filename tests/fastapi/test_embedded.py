"""`embedded=True`: the control plane and a worker inside the application."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastworker import Client, ConfigurationError, task
from fastworker.errors import StoreInUse
from fastworker.integrations.fastapi import FastWorkerClient, FastWorkerMiddleware
from tests.fastapi.web import WebServer
from tests.support.cluster import Cluster
from tests.support.waiting import Promised, until

TAKEOVER_WITHIN = 3.0

WEB = """
import logging
import os
from fastapi import FastAPI
from fastworker.integrations.fastapi import FastWorkerClient, FastWorkerMiddleware
from tasks import nap, where, work

logging.basicConfig(level="INFO")
app = FastAPI()
app.add_middleware(FastWorkerMiddleware, embedded=True, patience=10)


@app.post("/work/{payload}")
async def submit(payload: str):
    return {"id": await work.submit(payload), "process": os.getpid()}


@app.get("/where")
async def where_():
    return {"runs": await (await where.submit()).result(timeout=10), "process": os.getpid()}


@app.get("/state/{task_id}")
async def state(task_id: str, client: FastWorkerClient):
    return (await client.info(task_id)).state


@app.get("/served-by")
async def served_by(client: FastWorkerClient):
    return (await client.stats()).pid
"""


def test_an_application_alone_runs_its_tasks_and_keeps_them_over_a_restart(cluster: Cluster) -> None:
    for _ in range(2):
        web = WebServer(cluster, WEB)
        with web.client() as http:
            answer = http.get("/where").json()
            assert answer["runs"] == answer["process"] == web.program.pid
            await_success(web, http.post("/work/a").json()["id"])
        web.stop()
        assert "Traceback" not in web.program.log
    assert cluster.journal.count("start") == 2


IN_THE_WORDS_OF_030 = """
from fastapi import FastAPI
from fastworker.integrations.fastapi import FastWorker
import tasks

app = FastAPI()
fw = FastWorker(app, embedded=True, patience=10)


@app.post("/echo/{value}")
async def echo(value: str):
    result = await fw.submit_task("echo", args=(value,))
    return {"result": result.result, "workers": fw.worker_count}
"""


def test_fastworker_app_can_be_alone_too(cluster: Cluster) -> None:
    web = WebServer(cluster, IN_THE_WORDS_OF_030)
    with web.client() as http:
        assert http.post("/echo/a").json()["result"] == "a"
        until(lambda: http.post("/echo/b").json() == {"result": "b", "workers": 1}, 10, "the worker to be counted")
    web.stop()
    assert "Application shutdown complete" in web.program.log
    assert "Traceback" not in web.program.log


@pytest.mark.timeout(180)
def test_several_processes_share_one_and_another_takes_over_when_it_is_killed(
    cluster: Cluster, promised: Promised, pytestconfig: pytest.Config
) -> None:
    """Four in full size, two in the short one."""
    processes = 4 if pytestconfig.getoption("--full") else 2
    web = WebServer(cluster, WEB, "--workers", str(processes))
    with web.client() as http:
        until(lambda: web.program.log.count("Application startup complete") == processes, 60, "all processes")
        serving = http.get("/served-by").json()
        until(lambda: processes_that_answer(web) == processes, 30, "answers of all")
        assert http.get("/where").json()["runs"] == serving
        accepted = [http.post(f"/work/before-{n}").json()["id"] for n in range(50)]
        psutil.Process(serving).kill()
        killed = time.monotonic()
        successor = until(lambda: other_than(web, serving), 20, "a successor")
        took = time.monotonic() - killed
        accepted += [http.post(f"/work/after-{n}").json()["id"] for n in range(50)]
        for task_id in accepted:
            await_success(web, task_id)
    assert took < promised(TAKEOVER_WITHIN)
    assert successor in {child.pid for child in web.program.children()} - {serving}
    assert web.program.log.count(" serves at ipc://") - web.program.log.count("another process serves") == 2


def processes_that_answer(web: WebServer) -> int:
    """How many processes answer a few dozen requests, each of which comes over a connection of its own."""
    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(httpx.get, f"{web.url}/where", timeout=20) for _ in range(40)]
    return len({asked.result().json()["process"] for asked in asking})


def other_than(web: WebServer, killed: int) -> int | None:
    """The process that serves now, if it is another one."""
    try:
        answer = httpx.get(f"{web.url}/served-by", timeout=5)
    except httpx.TransportError:
        return None  # the connection was one of the killed process
    serving: int = answer.json() if answer.status_code == 200 else killed
    return serving if serving != killed else None


def await_success(web: WebServer, task_id: str) -> None:
    """Wait until a task has succeeded."""
    with web.client() as http:
        until(lambda: http.get(f"/state/{task_id}").json() == "succeeded", 20, f"the end of {task_id}")


@pytest.fixture
def alone(embedding: FastAPI) -> FastAPI:
    """It submits a task and tells the result."""

    @embedding.get("/sum")
    async def sum_(client: FastWorkerClient) -> int:
        total: int = await (await client.submit("embedded_sum", [2, 3])).result(timeout=10)
        return total

    return embedding


def test_testclient_needs_no_other_process(alone: FastAPI) -> None:
    @task(name="embedded_sum")
    def embedded_sum(a: int, b: int) -> int:
        return a + b

    for _ in range(2):
        with TestClient(alone) as http:
            assert http.get("/sum").json() == 5


def test_a_store_in_use_fails_the_start_with_a_reason(alone: FastAPI, tmp_path: Path, cluster: Cluster) -> None:
    cluster.start("--store-path", str(tmp_path / "store"))
    with pytest.raises(StoreInUse), TestClient(alone):
        pass


def test_what_can_not_be_embedded_is_refused_with_a_reason() -> None:
    with pytest.raises(ConfigurationError, match="either client= or embedded"):
        FastWorkerMiddleware(FastAPI(), client=Client("ipc:///tmp/nobody"), embedded=True)
    with pytest.raises(ConfigurationError, match="through a socket of this host"):
        FastWorkerMiddleware(FastAPI(), url="tls+tcp://127.0.0.1:5555", embedded=True)
