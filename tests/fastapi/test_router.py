"""`task_router()`: what the users of an application may ask of their tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastworker.integrations.fastapi import FastWorkerMiddleware, task_router
from fastworker_fastapi.events import unseen
from tests.fastapi.web import WebServer
from tests.support.cluster import Cluster
from tests.support.waiting import until

WEB = """
from fastapi import FastAPI, Request
from fastworker import TaskInfo
from fastworker.integrations.fastapi import FastWorkerMiddleware, task_router


async def is_owner(request: Request, task: TaskInfo) -> bool:
    return request.headers.get("user", "") in task.tags


app = FastAPI()
app.add_middleware(FastWorkerMiddleware, patience=1)
app.include_router(task_router())
app.include_router(task_router("/mine", authorize=is_owner))
"""


@pytest.fixture(scope="module")
def http(running: Cluster) -> Iterator[httpx.Client]:
    web = WebServer(running, WEB)
    with web.client() as client:
        yield client


def test_status_and_result_of_a_task(running: Cluster, http: httpx.Client) -> None:
    task_id = running.client.submit("add", [2, 3])
    answer = http.get(f"/tasks/{task_id}/result", params={"timeout": 10})
    assert (answer.status_code, answer.json()) == (
        200,
        {"id": task_id, "state": "succeeded", "done": True, "result": 5, "error": None},
    )
    status = http.get(f"/tasks/{task_id}").json()
    assert (status["state"], status["done"], status["attempt"], status["name"]) == ("succeeded", True, 1, "add")
    assert status["submitted_at"] <= status["started_at"] <= status["finished_at"]
    assert "args" not in status


def test_a_long_poll_ends_without_a_result_after_its_time(running: Cluster, http: httpx.Client) -> None:
    task_id = running.client.submit("add", [2, 3], delay=3600)
    answer = http.get(f"/tasks/{task_id}/result", params={"timeout": 0.3})
    assert (answer.status_code, answer.json()["state"], answer.json()["done"]) == (202, "scheduled", False)
    assert answer.elapsed.total_seconds() >= 0.3
    assert http.get(f"/tasks/{task_id}/result", params={"timeout": 3600}).status_code == 422


def test_a_failed_task_says_why_without_the_traceback(running: Cluster, http: httpx.Client) -> None:
    task_id = running.client.submit("fail", ["no luck"])
    outcome = http.get(f"/tasks/{task_id}/result", params={"timeout": 10}).json()
    assert (outcome["state"], outcome["error"]) == ("failed", {"type": "builtins.ValueError", "message": "no luck"})


def test_cancelling(running: Cluster, http: httpx.Client) -> None:
    task_id = running.client.submit("add", [2, 3], delay=3600)
    assert http.post(f"/tasks/{task_id}/cancel").json() == {"id": task_id, "answer": "was_queued"}
    assert http.post(f"/tasks/{task_id}/cancel").json()["answer"] == "already_done"


def test_a_result_that_is_no_longer_kept_is_gone(running: Cluster, http: httpx.Client) -> None:
    task_id = running.client.submit("add", [2, 3], result_ttl=0)
    until(lambda: running.client.info(task_id).state == "succeeded", 10, "the end")
    assert http.get(f"/tasks/{task_id}/result").status_code == 410


@pytest.mark.parametrize("path", ["", "/result", "/events"])
def test_what_does_not_exist_is_not_found(http: httpx.Client, path: str) -> None:
    assert http.get(f"/tasks/00000000-0000-7000-8000-000000000000{path}").status_code == 404
    assert http.get(f"/tasks/nothing{path}").status_code == 404


def test_events_tell_state_progress_and_log_until_the_end(running: Cluster, http: httpx.Client) -> None:
    file = running.folder / "go-on"
    task_id = running.client.submit("wait_for_file", [str(file)])
    told: list[tuple[str, Any]] = []
    with http.stream("GET", f"/tasks/{task_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for event in events(answer):
            told.append(event)
            if event[0] == "progress":
                file.touch()  # the task ends only after its progress was told: nothing waits for the end
    kinds = [kind for kind, _ in told]
    assert [data["line"] for kind, data in told if kind == "log"] == ["first line", "[red]second line[/red]"]
    assert ("progress", {"progress": 0.4, "text": "resizing"}) in told
    states = [data["state"] for kind, data in told if kind == "state"]
    assert states[-2:] == ["running", "succeeded"]
    assert kinds.index("progress") < len(kinds) - 2
    assert told[-1] == ("end", {"id": task_id, "state": "succeeded", "done": True, "result": "seen", "error": None})


def test_events_tell_the_parts_as_they_come_and_go_on_where_a_browser_was(running: Cluster, http: httpx.Client) -> None:
    file = running.folder / "the-third-part"
    task_id = running.client.submit("in_parts", [str(file)])
    told = []
    with http.stream("GET", f"/tasks/{task_id}/events") as answer:
        for event in events(answer):
            told.append(event)
            if event == ("part", {"part": 1}):
                file.touch()  # the task ends only after its second part was told
    assert [data["part"] for kind, data in told if kind == "part"] == [0, 1, 2]
    assert [kind for kind, _ in told][-2:] == ["state", "end"], "nothing comes after the end"
    with http.stream("GET", f"/tasks/{task_id}/events", headers={"Last-Event-ID": "1"}) as answer:
        lines = list(answer.iter_lines())
    assert lines[:3] == ["id: 2", "event: part", 'data: {"part":2}'], "the first that this browser has not seen"


def test_events_say_that_parts_are_no_longer_kept(running: Cluster, http: httpx.Client) -> None:
    task_id = running.client.submit("many_parts", [10_500])
    running.client.result(task_id, timeout=20)
    with http.stream("GET", f"/tasks/{task_id}/events") as answer:
        told = list(events(answer))
    assert [kind for kind, _ in told] == ["gap", "state", "end"]
    assert "the parts 0 to 499 of task" in told[0][1]["detail"]


def events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    """The events of a stream."""
    kind = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


def test_the_application_says_who_may_see_a_task(running: Cluster, http: httpx.Client) -> None:
    task_id = running.client.submit("add", [2, 3], tags=["ada"], delay=3600)
    for path in ("", "/result", "/events"):
        assert http.get(f"/mine/{task_id}{path}", headers={"user": "bob"}).status_code == 404
    assert http.post(f"/mine/{task_id}/cancel", headers={"user": "bob"}).status_code == 404
    assert http.get(f"/mine/{task_id}", headers={"user": "ada"}).json()["state"] == "scheduled"
    assert http.post(f"/mine/{task_id}/cancel", headers={"user": "ada"}).json()["answer"] == "was_queued"


def test_without_a_control_plane_the_answer_is_503(cluster: Cluster) -> None:
    app = FastAPI()
    app.add_middleware(FastWorkerMiddleware, url=cluster.url, patience=0.3)
    app.include_router(task_router())
    with TestClient(app) as http:
        answer = http.get("/tasks/00000000-0000-7000-8000-000000000000")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_the_openapi_document_has_all_models() -> None:
    app = FastAPI()
    app.include_router(task_router("/jobs", tags=["jobs"]))
    document = app.openapi()
    assert set(document["paths"]) == {
        "/jobs/{task_id}", "/jobs/{task_id}/result", "/jobs/{task_id}/cancel", "/jobs/{task_id}/events",
    }  # fmt: skip
    assert {"TaskStatus", "TaskOutcome", "Cancellation", "Problem", "Failure"} <= set(document["components"]["schemas"])
    assert set(document["paths"]["/jobs/{task_id}/result"]["get"]["responses"]) == {"200", "202", "404", "422", "503"}
    assert "text/event-stream" in document["paths"]["/jobs/{task_id}/events"]["get"]["responses"]["200"]["content"]


@pytest.mark.parametrize(
    ("seen", "log", "new"),
    [
        ([], ["a", "b"], ["a", "b"]),
        (["a"], ["a", "b"], ["b"]),
        (["a", "b"], ["b", "c"], ["c"]),  # the first line is not kept any more
        (["a", "a"], ["a", "a", "a"], ["a"]),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        (["a"], ["a"], []),
    ],
)
def test_lines_that_were_not_seen(seen: list[str], log: list[str], new: list[str]) -> None:
    assert unseen(seen, log) == new
