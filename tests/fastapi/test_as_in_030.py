"""Programs written for fastworker 0.3.0 run as they are."""

from __future__ import annotations

import json
from datetime import datetime

import pynng

from fastworker import Client
from fastworker.legacy import TaskStatus
from tests.fastapi.web import WebServer
from tests.support.cluster import Cluster
from tests.support.waiting import until

APPLICATION = """
from fastapi import FastAPI

from fastworker import task
from fastworker.integration.fastapi import FastWorker
from fastworker.tasks.models import TaskPriority

app = FastAPI(title="as in 0.3.0")
fw = FastWorker(app, client_kwargs={"timeout": 30, "retries": 3})


@task
def send_welcome_email(user_id: int, email: str) -> str:
    return f"Welcome email sent to user {user_id} at {email}"


@task
def generate_report(report_type: str, params: dict) -> dict:
    return {"report_type": report_type, "status": "generated", "params": params}


@task
def broken() -> None:
    raise ValueError("no luck")


@app.post("/users/{user_id}/welcome")
async def welcome_user(user_id: int, email: str):
    task_id = await fw.delay("send_welcome_email", user_id, email)
    return {"task_id": task_id, "status": "queued"}


@app.post("/reports/{report_type}")
async def create_report(report_type: str, params: dict):
    result = await fw.submit_task("generate_report", args=(report_type, params), priority=TaskPriority.HIGH)
    return {"status": result.status.value, "result": result.result}


@app.post("/broken")
async def run_broken():
    result = await fw.submit_task("broken")
    return {"status": result.status.value, "error": result.error}


@app.post("/tasks/batch")
async def batch_submit():
    task_ids = await fw.submit_batch(
        [
            {"task_name": "send_welcome_email", "args": (101, "a@b.com")},
            {"task_name": "send_welcome_email", "args": (102, "c@d.com"), "countdown": 3600},
        ]
    )
    return {"task_ids": task_ids, "count": len(task_ids)}


@app.get("/tasks/{task_id}")
async def task_status(task_id: str):
    result = await fw.get_task_result(task_id)
    if result:
        return {"task_id": task_id, "status": result.status.value, "result": result.result}
    local = fw.get_result(task_id)
    if local:
        return {"task_id": task_id, "status": local.status.value, "local": True}
    return {"task_id": task_id, "status": "not_found"}


@app.get("/local/{task_id}")
async def local_status(task_id: str):
    return {"status": fw.get_status(task_id)}


@app.delete("/tasks/{task_id}")
async def cancel_task(task_id: str):
    cancelled = await fw.cancel_task(task_id)
    return {"task_id": task_id, "cancelled": cancelled}


@app.get("/health")
async def health():
    return {"status": "healthy", "workers_discovered": fw.worker_count}
"""

PROGRAM = """
import asyncio

from fastworker import Client
from fastworker.tasks.models import TaskPriority, TaskStatus


async def main():
    client = Client()
    await client.start()
    task_id = await client.delay("add", 5, 3, priority=TaskPriority.HIGH)
    while client.get_status(task_id) is TaskStatus.PENDING:
        await asyncio.sleep(0.01)
    print(client.get_status(task_id).value, client.get_result(task_id).result)
    result = await client.submit_task("add", args=(1,), kwargs={"b": 2})
    print(result.status == TaskStatus.SUCCESS, result.result, result.completed_at >= result.started_at)
    failed = await client.submit_task("fail", kwargs={"message": "no luck"})
    print(failed.status.value, failed.error)
    later = await client.delay("add", 1, 2, countdown=3600)
    print(await client.cancel_task(later), await client.cancel_task(later))
    print((await client.get_task_result(later)).status.value, await client.get_task_result("nothing"))
    client.stop()


asyncio.run(main())
"""


def test_an_application_with_fastworker_app(cluster: Cluster) -> None:
    (cluster.folder / "web.py").write_text(APPLICATION)
    cluster.start("web")
    web = WebServer(cluster, APPLICATION)
    with web.client() as http:
        assert http.get("/health").json() == {"status": "healthy", "workers_discovered": 1}
        task_id = http.post("/users/42/welcome?email=hi@example.com").json()["task_id"]
        until(
            lambda: http.get(f"/local/{task_id}").json() == {"status": "success"}, 10, "what the client knows by itself"
        )
        assert http.get(f"/tasks/{task_id}").json()["result"] == "Welcome email sent to user 42 at hi@example.com"
        report = http.post("/reports/sales", json={"period": "Q1"}).json()
        assert report["status"] == "success"
        assert report["result"]["params"] == {"period": "Q1"}
        assert http.post("/broken").json() == {"status": "failure", "error": "builtins.ValueError: no luck"}
        batch = http.post("/tasks/batch").json()
        assert batch["count"] == 2
        assert http.get(f"/tasks/{batch['task_ids'][1]}").json()["status"] == "scheduled"
        assert http.delete(f"/tasks/{batch['task_ids'][1]}").json()["cancelled"] is True
        assert http.get("/tasks/nothing").json()["status"] == "not_found"
    assert "retries mean nothing any more" in web.program.log


def test_a_program_with_a_client(running: Cluster) -> None:
    said = running.script(PROGRAM)
    assert said.out.splitlines() == [
        "success 8",
        "True 3 True",
        "failure builtins.ValueError: no luck",
        "True False",
        "cancelled None",
    ], said.err
    assert said.err == ""


def test_a_callback_tells_a_pair_socket_of_the_end(running: Cluster) -> None:
    address = f"ipc://{running.runtime / 'callback'}"
    program = (
        "import asyncio, sys\n"
        "from fastworker import Client\n"
        "async def main():\n"
        "    client = Client()\n"
        "    await client.start()\n"
        "    await client.delay_with_callback('add', sys.argv[1], 2, 3, callback_data={'notify': 'admin'})\n"
        "    await asyncio.sleep(1)\n"
        "    client.stop()\n"
        "asyncio.run(main())\n"
    )
    with pynng.Pair0(listen=address, recv_timeout=20_000) as pair:
        said = running.script(program, address)
        assert said.err == ""
        message = json.loads(pair.recv())
    assert (message["status"], message["result"], message["error"]) == ("success", 5, None)
    assert message["callback_data"] == {"notify": "admin"}
    assert datetime.fromisoformat(message["completed_at"]) >= datetime.fromisoformat(message["started_at"])


async def test_stop_without_await_says_goodbye(running: Cluster) -> None:
    client = await Client(running.url).start()
    result = await client.submit_task("add", (2, 3))
    assert (result.status, result.result) == (TaskStatus.SUCCESS, 5)
    _ = client.stop()  # as 0.3.0 had it: nothing to wait for
    assert not client.connected
