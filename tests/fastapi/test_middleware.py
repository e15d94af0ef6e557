"""`add_middleware(FastWorkerMiddleware)`, from an HTTP request to the task that has run."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import time

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastworker import Client, ConfigurationError
from fastworker.integrations.fastapi import (
    FastWorker,
    FastWorkerClient,
    FastWorkerMiddleware,
    fastworker_client,
    fastworker_lifespan,
)
from tests.fastapi.web import GRANIAN, HYPERCORN, UVICORN, WebServer
from tests.support.cluster import Cluster
from tests.support.waiting import Promised, until

SEEDS = """
from fastapi import FastAPI
from fastworker import task
from fastworker.integrations.fastapi import FastWorkerMiddleware

app = FastAPI()
app.add_middleware(FastWorkerMiddleware)


@task
async def process_document(doc_id: int) -> str:
    return f"document {doc_id} is processed"


@app.post("/documents/{doc_id}")
async def upload(doc_id: int):
    task_id = await process_document.submit(doc_id)
    return {"task_id": task_id, "status": "queued"}
"""

IMPATIENT = SEEDS.replace("(FastWorkerMiddleware)", "(FastWorkerMiddleware, patience=1.0, max_waiting=5)")

TRACED = """
from fastapi import FastAPI, Request
from fastworker.integration.fastapi import FastWorkerMiddleware
from tasks import trace_of, trace_of_child

app = FastAPI()
app.add_middleware(FastWorkerMiddleware)


@app.post("/{kind}")
async def submit(kind: str):
    handle = await (trace_of if kind == "itself" else trace_of_child).submit()
    return await handle.result(timeout=10)
"""

TRACE_TASKS = """

@task
def trace_of() -> dict[str, str]:
    return current_task().headers


@task
def trace_of_child() -> dict[str, str]:
    return trace_of.submit_sync().result_sync(timeout=10)
"""


@pytest.mark.parametrize("server", [UVICORN, HYPERCORN, GRANIAN])
def test_a_handler_submits_and_the_task_runs(cluster: Cluster, server: str) -> None:
    (cluster.folder / "web.py").write_text(SEEDS)
    cluster.start("web")
    web = WebServer(cluster, SEEDS, server=server)
    with web.client() as http:
        answer = http.post("/documents/7")
    assert answer.status_code == 200
    assert answer.json()["status"] == "queued"
    assert cluster.client.result(answer.json()["task_id"], timeout=10) == "document 7 is processed"
    assert web.stop() in (0, -signal.SIGTERM)
    assert "Traceback" not in web.program.log


def test_an_application_starts_without_a_control_plane_and_finds_it_later(cluster: Cluster, promised: Promised) -> None:
    web = WebServer(cluster, IMPATIENT)
    with web.client() as http:
        began = time.monotonic()
        answer = http.post("/documents/1")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert time.monotonic() - began < promised(2.0)
        cluster.start("web")
        until(lambda: http.post("/documents/2").status_code == 200, 15, "a submission after the start")


def test_while_the_control_plane_is_away_requests_end_within_their_bound(cluster: Cluster) -> None:
    """Five may wait for a second; those that come on top are refused at once; nothing refused is done later."""
    (cluster.folder / "web.py").write_text(IMPATIENT)
    control_plane = cluster.start("web")
    web = WebServer(cluster, IMPATIENT)
    with web.client() as http:
        until(lambda: http.post("/documents/0").status_code == 200, 15, "the first submission")
        before = cluster.client.stats().states["succeeded"]
        control_plane.kill()
        answers = answers_to_crowd(web, 20)
        assert [status for status, _ in answers] == [503] * 20
        assert sum(seconds < 0.6 for _, seconds in answers) >= 10
        assert max(seconds for _, seconds in answers) < 2.0
        cluster.start("web")
        until(lambda: http.post("/documents/1").status_code == 200, 15, "a submission after the restart")
    until(lambda: cluster.client.stats().states["queued"] == 0, 15, "rest")
    assert cluster.client.stats().states["succeeded"] <= before + 2


def test_a_control_plane_that_hangs_holds_no_request_longer_than_its_bound(cluster: Cluster) -> None:
    (cluster.folder / "web.py").write_text(IMPATIENT)
    control_plane = cluster.start("web")
    web = WebServer(cluster, IMPATIENT)
    with web.client() as http:
        until(lambda: http.post("/documents/0").status_code == 200, 15, "the first submission")
    control_plane.signal(signal.SIGSTOP)
    try:
        answers = answers_to_crowd(web, 20)
    finally:
        control_plane.signal(signal.SIGCONT)
    assert {status for status, _ in answers} == {503}
    assert max(seconds for _, seconds in answers) < 2.0


def answers_to_crowd(web: WebServer, count: int) -> list[tuple[int, float]]:
    """Status and seconds of requests that are made all at once."""

    async def ask(http: httpx.AsyncClient, number: int) -> tuple[int, float]:
        began = time.monotonic()
        answer = await http.post(f"/documents/{number}")
        return answer.status_code, time.monotonic() - began

    async def ask_all() -> list[tuple[int, float]]:
        async with httpx.AsyncClient(base_url=web.url, timeout=20) as http:
            return await asyncio.gather(*(ask(http, number) for number in range(count)))

    return asyncio.run(ask_all())


def test_the_trace_context_of_a_request_travels_without_any_tracing_package(cluster: Cluster) -> None:
    with (cluster.folder / "tasks.py").open("a") as tasks:
        tasks.write(TRACE_TASKS)
    cluster.start()
    web = WebServer(cluster, TRACED)
    sent = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "rojo=00f067aa0ba902b7",
        "baggage": "user=ada",
    }
    with web.client() as http:
        assert http.post("/itself", headers=sent).json() == sent
        assert http.post("/child", headers=sent).json() == sent, "a task that a task submits carries it on"
        assert http.post("/itself").json() == {}, "one request knows nothing of another"


def test_testclient_runs_an_application_with_its_lifespan(running: Cluster) -> None:
    app = FastAPI()
    app.add_middleware(FastWorkerMiddleware, url=running.url)

    @app.get("/sum")
    async def sum_(client: FastWorkerClient) -> int:
        total: int = await (await client.submit("add", [2, 3])).result(timeout=10)
        return total

    for _ in range(2):  # and once more: the application can be started again in another event loop
        with TestClient(app) as http:
            assert http.get("/sum").json() == 5


async def test_httpx_reaches_an_application_without_lifespan(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTWORKER_URL", running.url)
    app = FastAPI()
    app.add_middleware(FastWorkerMiddleware)

    @app.get("/sum")
    async def sum_(client: FastWorkerClient) -> int:
        total: int = await (await client.submit("add", [2, 3])).result(timeout=10)
        return total

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        assert (await http.get("/sum")).json() == 5


async def test_a_test_puts_its_own_client_in_place_and_needs_no_control_plane() -> None:
    class Fake(Client):
        async def delay(self, name: object, *args: object, **_: object) -> str:  # type: ignore[override]
            return f"{name}{args}"

    app = FastAPI()
    app.add_middleware(FastWorkerMiddleware, url="ipc:///tmp/nobody-listens-here")
    app.dependency_overrides[fastworker_client] = lambda: Fake("ipc:///tmp/nobody-listens-here")

    @app.get("/")
    async def index(client: FastWorkerClient) -> str:
        return await client.delay("add", 1, 2)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        assert (await http.get("/")).json() == "add(1, 2)"


def test_a_wrong_key_fails_the_start_with_a_reason(tmp_path: object) -> None:
    app = FastAPI()
    app.add_middleware(FastWorkerMiddleware, url="tls+tcp://127.0.0.1:1", key="ab")
    with pytest.raises(Exception, match="64 hexadecimal digits"), TestClient(app):
        pass


def test_options_that_would_be_overlooked_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="say either client= or url, patience"):
        FastWorkerMiddleware(FastAPI(), client=Client("ipc:///tmp/nobody"), url="ipc:///tmp/other", patience=1.0)
    with pytest.raises(TypeError, match="patients"):
        fastworker_lifespan(patients=1.0)  # type: ignore[call-arg]
    app = FastAPI()
    assert FastWorker(app, client_kwargs={"timeout": 3}, max_waiting=7).client.max_waiting == 7


@pytest.mark.parametrize("module", ["integrations", "integration"])
def test_without_the_package_the_import_says_what_to_install(module: str) -> None:
    program = textwrap.dedent(f"""
        import sys
        sys.modules["fastworker_fastapi"] = None
        try:
            import fastworker.{module}.fastapi
        except ImportError as error:
            print(error)
    """)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "FastWorker for FastAPI is not installed: pip install 'fastworker[fastapi]'\n"


def test_both_aliases_have_all_names() -> None:
    import fastworker.integration.fastapi
    import fastworker.integrations.fastapi
    import fastworker_fastapi

    assert fastworker.integration.fastapi.__all__ == fastworker_fastapi.__all__
    assert fastworker.integrations.fastapi.__all__ == fastworker_fastapi.__all__
