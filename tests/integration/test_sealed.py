"""Payload encryption with real processes: clients and workers read what tasks carry, and nobody between them does."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.site import Site, running_site
from tests.otel.receiver import Receiver
from tests.support.cluster import Cluster
from tests.support.memory import holds
from tests.support.waiting import until

TASKS = """
import time
from collections.abc import Iterator
from pathlib import Path
from fastworker import current_task, task
from tests.support.journal import write_down

@task
def tell(text: str) -> str:
    current_task().progress(0.5, f"progress {text}")
    current_task().log(f"log {text}")
    write_down("start", current_task().id, 1, text)
    return f"result {text}"

@task
def linger(path: str, done: float, text: str) -> None:
    current_task().progress(done, 1.0, f"progress {text}")
    while not Path(path).exists():
        time.sleep(0.02)

@task(run_in="process")
def elsewhere(text: str) -> str:
    return f"result {text}"

@task
def fail(text: str) -> None:
    raise ValueError(f"error {text}")

@task
def parts(text: str) -> Iterator[str]:
    yield f"part {text}"
"""
CLIENT = """
import asyncio, os, sys
from fastworker import Client, TaskFailed

async def main(text: str) -> None:
    async with Client() as client:
        handle = await client.submit("tell", [text], delay=1)  # so that we listen before it runs
        heard = [(note.progress, note.log) async for note in handle.notes()]
        print("heard", heard)
        print(await handle, await client.submit("elsewhere", [text]), await (await client.submit("elsewhere", [text])))
        print(await (await client.submit("tell", [handle])))
        print([part async for part in (await client.submit("parts", [text])).stream()])
        try:
            await (await client.submit("fail", [text]))
        except TaskFailed as error:
            print(error)
        assert await client.requeue(handle, [f"again {text}"])
        print(await client.result(handle, 20))

asyncio.run(main(os.environ["CANARY"]))
"""
SUBMITS_LINGER = """
import sys
from fastworker import BlockingClient

with BlockingClient() as client:
    print(client.submit("linger", [sys.argv[1], 0.4711, sys.argv[2]]))
"""
SEES_PROGRESS = """
import sys
from fastworker import BlockingClient

with BlockingClient() as client:
    print(client.info(sys.argv[1]).progress)
"""


def shown_of_progress(site: Site, canary: str, keys: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What the API and what pages and commands show of a running task; a client with the keys sees how far it is."""
    go_on = site.cluster.folder / "go on"
    task = site.cluster.script(SUBMITS_LINGER, str(go_on), canary, **keys).out.strip()
    path = f"/tasks/{task}"

    def look() -> dict[str, Any] | None:
        info: dict[str, Any] = site.json(f"/api/v1{path}")
        return info if info["progress"] or info["sealed_progress"] else None

    info = until(look, 10, "what the task says")
    assert info is not None
    pages = site.http.get("/tasks").text + site.http.get(path).text + site.cluster.run("status", task).out
    assert site.cluster.script(SEES_PROGRESS, task, **keys).out == f"(0.4711, 'progress {canary}')\n"
    go_on.touch()
    return info, pages


def everywhere(site: Site, traces: Receiver, canary: str) -> dict[str, bool]:
    """Where a text can be found, of all the places that stand between a client and a worker."""
    control_plane = site.program
    [dashboard] = control_plane.children()
    ids = [task["id"] for task in site.json("/api/v1/tasks")["tasks"]]
    pages = [site.http.get(path).text for path in ("/", "/tasks", "/failures", "/api/v1/tasks", "/metrics")]
    pages += [site.http.get(f"{path}/{id}").text for id in ids for path in ("/tasks", "/api/v1/tasks")]
    store = site.cluster.folder / ".fastworker"
    return {
        "memory of the control plane": holds(control_plane.pid, canary),
        "memory of the dashboard": holds(dashboard.pid, canary),
        "store": any(canary.encode() in file.read_bytes() for file in store.iterdir()),
        "log": canary in control_plane.log,
        "pages": any(canary in page for page in pages),
        "traces": any(canary.encode() in body for body in traces.bodies),
    }


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_nobody_between_client_and_worker_can_read_what_tasks_carry(tmp_path: Path, sealed: bool) -> None:
    """Without payload keys the same look finds the canary: so it can see."""
    canary = f"canary-{secrets.token_hex(8)}"
    keys: dict[str, Any] = {"FASTWORKER_PAYLOAD_KEYS": secrets.token_hex(32)} if sealed else {}
    with Receiver() as traces, running_site(tmp_path, "--processes", "0", **traces.variables) as site:
        keys |= traces.variables
        (tmp_path / "secret_tasks.py").write_text(TASKS)
        site.cluster.worker("secret_tasks", **keys)
        info, pages = shown_of_progress(site, canary, keys)
        done = site.cluster.script(CLIENT, CANARY=canary, **keys)
        assert done.code == 0, done.err
        said = ("progress", "log", "result", "result result", "result again", "part", "error")
        assert [word for word in said if f"{word} {canary}" not in done.out] == []

        until(lambda: site.json("/api/v1/stats")["states"]["failed"] == 1, 10, "the dashboard's view")
        until(lambda: any(span.failed for span in traces.spans), 10, "the span of the failed task")
        found = everywhere(site, traces, canary)
        if sealed:
            assert not any(found.values()), found
            assert "fw1." in site.http.get("/api/v1/tasks").text
            assert info["progress"] is None
            assert pages.count("sealed") == 3
            assert not any(number in pages for number in ("0.4711", "47 %", "47%"))
        else:
            assert found["traces"]
            assert info["progress"] == [0.4711, f"progress {canary}"]
            assert all(number in pages for number in ("0.4711", "47 %", "47%"))
            assert found["memory of the control plane"]
            assert found["store"]
            assert found["pages"]


SUBMITS = """
import sys
from fastworker import BlockingClient

with BlockingClient() as client:
    print(*[client.submit("work", [who]) for who in sys.argv[1:]])
"""
FETCHES = """
import sys
from fastworker import BlockingClient, FastWorkerError

with BlockingClient() as client:
    for task in sys.argv[1:]:
        try:
            print(client.result(task, 20))
        except FastWorkerError as error:
            print(type(error).__name__, str(error).replace("\\n", " "))
"""


def test_a_control_plane_that_swaps_what_it_keeps_is_found_out(cluster: Cluster) -> None:
    keys: dict[str, Any] = {"FASTWORKER_PAYLOAD_KEYS": secrets.token_hex(32)}
    control_plane = cluster.start("--processes", "0")
    alice, bob, carol = cluster.script(SUBMITS, "alice", "bob", "carol", **keys).out.split()
    [forged] = cluster.script(SUBMITS, "mallory").out.split()  # without the key
    control_plane.terminate()
    with closing(sqlite3.connect(cluster.folder / ".fastworker" / "queue.db")) as store, store:
        (of_alice,), (of_bob,) = (
            store.execute("SELECT args FROM tasks WHERE id = ?", [task]).fetchone() for task in (alice, bob)
        )
        assert "alice" not in of_alice
        store.execute("UPDATE tasks SET args = ? WHERE id = ?", [of_bob, alice])
        store.execute("UPDATE tasks SET args = ? WHERE id = ?", [of_alice, bob])

    cluster.start("--processes", "0")
    cluster.worker(**keys)
    fetched = cluster.script(FETCHES, alice, bob, carol, forged, **keys).out.splitlines()
    assert "TaskFailed" in fetched[0]
    assert "was changed, or is that of something else" in fetched[0]
    assert "was changed, or is that of something else" in fetched[1]
    assert fetched[2] == "done:carol"
    assert "came in plain text" in fetched[3]
    assert {event.payload for event in cluster.journal.events("start")} == {"carol"}
    [without_keys] = cluster.script(FETCHES, carol).out.splitlines()
    assert without_keys.startswith("PayloadSealed")
    assert "set FASTWORKER_PAYLOAD_KEYS" in without_keys
