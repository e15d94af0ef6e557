"""`fastworker dev`: save, and the next task runs the new code; nothing that is queued is lost."""

from __future__ import annotations

import time

import pytest

from tests.support.cluster import Cluster, Program
from tests.support.waiting import Promised, until

CODE = """
import time

from fastworker import task


@task
def version() -> int:
    return {version}


@task
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return {version}
"""


def save(cluster: Cluster, version: object) -> None:
    (cluster.folder / "tasks.py").write_text(CODE.format(version=version))


@pytest.fixture
def dev(cluster: Cluster) -> Program:
    save(cluster, 0)
    program = cluster.program("dev", "dev", "--listen", cluster.url, "--log-level", "debug")
    cluster.await_listening(program)
    cluster.await_own_worker()
    return program


def now(cluster: Cluster) -> int:
    version: int = cluster.client.result(cluster.client.delay("version"), 20)
    return version


def test_the_next_task_runs_the_new_code_and_nothing_queued_is_lost(
    dev: Program, cluster: Cluster, pytestconfig: pytest.Config, promised: Promised
) -> None:
    edits = 50 if pytestconfig.getoption("--full") else 8
    assert now(cluster) == 0
    queued: list[str] = []
    took = []
    for version in range(1, edits + 1):
        # Nobody saves twice within half a second: by then the process for the next code is warm.
        until(lambda version=version: dev.log.count("waits for the word") > version, 20, "a warm process")  # type: ignore[misc]
        queued += [cluster.client.delay("nap", 0.01) for _ in range(20)]
        saved = time.monotonic()
        save(cluster, version)
        until(lambda version=version: now(cluster) == version, 10, f"version {version}")  # type: ignore[misc]
        took.append(time.monotonic() - saved)
        assert now(cluster) == version
    for task_id in queued:
        assert cluster.client.result(task_id, 20) in range(edits + 1)
    assert {cluster.client.info(task_id).crashes for task_id in queued} == {0}
    assert sorted(took)[len(took) // 2] < promised(1.0), took
    print(f"{edits} edits: median {sorted(took)[len(took) // 2]:.2f} s, longest {max(took):.2f} s")


def test_a_syntax_error_is_shown_and_the_last_good_code_goes_on(dev: Program, cluster: Cluster) -> None:
    save(cluster, "1 +")
    until(lambda: "the last good code goes on" in dev.log, 20, "the report")
    assert "SyntaxError" in dev.log
    assert now(cluster) == 0
    save(cluster, 2)
    until(lambda: now(cluster) == 2, 20, "the mended code")


def test_a_task_that_runs_at_a_reload_ends_with_the_code_it_began_with(dev: Program, cluster: Cluster) -> None:
    task_id = cluster.client.delay("nap", 3.0)
    until(lambda: cluster.client.info(task_id).state == "running", 10, "the start")
    save(cluster, 1)
    until(lambda: now(cluster) == 1, 20, "the new code")
    assert cluster.client.result(task_id, 20) == 0
    assert cluster.client.info(task_id).attempt == 1


def test_a_worker_that_dies_is_replaced_and_a_signal_ends_all(dev: Program, cluster: Cluster) -> None:
    worker = next(worker.pid for worker in cluster.client.workers() if worker.connected)
    next(child for child in dev.children() if child.pid == worker).kill()
    assert now(cluster) == 0
    assert dev.terminate() == 0
    assert dev.children() == []


def test_code_that_is_broken_at_the_start_is_waited_for(cluster: Cluster) -> None:
    save(cluster, "1 +")
    program = cluster.program("dev", "dev", "--listen", cluster.url)
    cluster.await_listening(program)
    until(lambda: "SyntaxError" in program.log, 20, "the report")
    save(cluster, 1)
    assert now(cluster) == 1
