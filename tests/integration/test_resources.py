"""Resources: made once per process, given to tasks by their type, ended in order."""

from __future__ import annotations

from fastworker import State
from tests.support.cluster import Cluster
from tests.support.waiting import until

CODE = """
import asyncio
import os
from dataclasses import dataclass

from fastworker import current_task, on_shutdown, on_startup, resource, task


@dataclass
class Settings:
    name: str


@dataclass
class Database:
    settings: Settings
    pid: int


@on_startup
def settings() -> Settings:
    return Settings("shop")


@on_startup
async def connect(settings: Settings) -> Database:
    await asyncio.sleep(0)
    return Database(settings, os.getpid())


@on_shutdown
async def disconnect(database: Database) -> None:
    with open("closed", "a") as file:
        file.write(f"{database.pid}\\n")


@task
def look(number: int, database: Database = resource()) -> tuple[int, str, bool]:
    return number, database.settings.name, database.pid == os.getpid()


@task
async def look_async(*, database: Database = resource()) -> bool:
    return database is current_task().resources[Database]


@task(run_in="process")
def look_in_process(database: Database = resource()) -> bool:
    return database.pid == os.getpid()


@task
def miss(value: bytes = resource()) -> None:
    pass
"""


def test_tasks_get_resources_by_type_wherever_they_run(cluster: Cluster) -> None:
    (cluster.folder / "tasks.py").write_text(CODE)
    cluster.start("--processes", "0")
    worker = cluster.worker()
    client = cluster.client
    assert client.result(client.delay("look", 7), 20) == [7, "shop", True]
    assert client.result(client.delay("look_async"), 20) is True
    assert client.result(client.delay("look_in_process"), 20) is True
    missed = client.delay("miss")
    until(lambda: client.info(missed).state == State.FAILED, 10, "the failure")
    error = client.info(missed).error
    assert error is not None
    assert "there is no resource of type bytes; there are: Settings, Database" in error.message
    slots = [child.pid for child in worker.children()]
    assert worker.terminate() == 0
    closed = {int(pid) for pid in (cluster.folder / "closed").read_text().split()}
    assert closed == {worker.pid, *slots}


def test_the_definition_does_not_ask_for_what_the_worker_gives(cluster: Cluster) -> None:
    (cluster.folder / "tasks.py").write_text(CODE)
    cluster.start()
    look = next(d for d in cluster.client._do(lambda client: client.definitions()) if d.name == "look")
    assert list(look.parameters["properties"]) == ["number"]


def test_a_worker_whose_resources_fail_says_so_and_takes_no_task(cluster: Cluster) -> None:
    (cluster.folder / "tasks.py").write_text(CODE.replace('return Settings("shop")', 'raise OSError("no route")'))
    cluster.start("--processes", "0")
    worker = cluster.worker(wait=False)
    assert worker.wait(30) != 0
    assert "on_startup tasks.settings failed, so no task is taken" in worker.log
    assert "OSError: no route" in worker.log
    assert "is ready" not in worker.log
