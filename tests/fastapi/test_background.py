"""Tasks that go with a response: queued before it, or after it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from fastworker import ConfigurationError
from tests.fastapi.web import WebServer
from tests.support.cluster import Cluster
from tests.support.sample_tasks import add
from tests.support.waiting import until

WEB = """
from fastapi import FastAPI, HTTPException
from fastworker.integrations.fastapi import BackgroundTasks, FastWorkerMiddleware
from tasks import add, work

app = FastAPI()
app.add_middleware(FastWorkerMiddleware, patience=1)


@app.post("/background/{payload}")
def background(payload: str, background: BackgroundTasks):
    return [background.add_task(work, payload), background.add_task(add, 1, b=2)]


@app.post("/fails/{payload}")
async def fails(payload: str, background: BackgroundTasks):
    background.add_task(work, payload)
    raise HTTPException(409, "no")


@app.post("/wrong")
async def wrong(background: BackgroundTasks):
    background.add_task(add, 1, "two")


@app.post("/plain")
async def plain(background: BackgroundTasks):
    background.add_task(print, 1)


@app.post("/after/{payload}")
async def after(payload: str):
    return {"id": await work.options(after_response=True).submit(payload)}


@app.post("/after-in-a-thread/{payload}")
def after_in_a_thread(payload: str):
    return {"id": work.options(after_response=True).submit_sync(payload)}
"""


@pytest.fixture
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    (cluster.folder / "web.py").write_text(WEB)
    cluster.start("tasks")
    with WebServer(cluster, WEB).client() as client:
        yield client


def test_what_was_added_is_queued_when_the_response_comes(cluster: Cluster, http: httpx.Client) -> None:
    cluster.client.pause(name="work")
    first, second = http.post("/background/a").json()
    assert cluster.client.info(first).state == "queued", "with no waiting at all"
    assert cluster.client.result(second, timeout=10) == 3
    cluster.programs[0].kill()
    cluster.start("tasks")
    cluster.client.resume(name="work")
    assert cluster.client.result(first, timeout=20) == "done:a", "a restart has not lost it"


def test_a_handler_that_fails_has_queued_nothing(cluster: Cluster, http: httpx.Client) -> None:
    assert http.post("/fails/a").status_code == 409
    for path in ("/wrong", "/plain"):  # each over a connection of its own: the server closes it after such an end
        assert httpx.post(http.base_url.join(path)).status_code == 500
    assert cluster.client.list() == []
    web = cluster.programs[-1]
    until(lambda: "InvalidArguments" in web.log, 10, "the reason in the log")
    until(lambda: "make it a task function with @task" in web.log, 10, "the reason in the log")


def test_without_a_control_plane_the_response_is_503_and_nothing_queued(cluster: Cluster, http: httpx.Client) -> None:
    assert http.post("/background/a").status_code == 200
    cluster.programs[0].kill()
    assert http.post("/background/b").status_code == 503
    cluster.start("tasks")
    until(lambda: http.post("/background/c").status_code == 200, 15, "a response after the restart")
    payloads = {task.args for task in cluster.client.list(name="work")}
    assert not any('"b"' in (args or "") for args in payloads)


def test_after_the_response_means_that_the_response_does_not_wait(cluster: Cluster, http: httpx.Client) -> None:
    for path in ("/after/a", "/after-in-a-thread/b"):
        task_id = http.post(path).json()["id"]
        await_known(cluster, task_id)
        assert cluster.client.result(task_id, timeout=10) == f"done:{path[-1]}"
    cluster.programs[0].kill()
    answer = http.post("/after/c")
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() < 0.5
    log = cluster.programs[1].log_path
    until(lambda: f"is lost: work {answer.json()['id']}" in log.read_text(), 10, "the loss in the log")


def await_known(cluster: Cluster, task_id: str) -> None:
    """Wait until the task has been submitted."""
    until(lambda: task_id in {task.id for task in cluster.client.list()}, 10, "the submission")


async def test_after_the_response_needs_a_request() -> None:
    with pytest.raises(ConfigurationError, match="works in a request"):
        _ = await add.options(after_response=True).submit(1, 2)
