"""Which worker takes the work: subworkers, the control plane's own, one process for all."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.waiting import until


def runs_in(cluster: Cluster) -> int:
    """The process that a task runs in."""
    client = cluster.client
    pid: int = client.result(client.delay("where"), 20)
    return pid


def test_a_worker_finds_the_control_plane_without_being_told(cluster: Cluster) -> None:
    cluster.start("--processes", "0")
    worker = cluster.worker()
    assert runs_in(cluster) == worker.pid


def test_a_worker_may_start_first(cluster: Cluster) -> None:
    worker = cluster.worker(wait=False)
    control_plane = cluster.start("--processes", "0")
    until(lambda: "worker" in cluster.workers(), 20, "the worker")
    assert runs_in(cluster) == worker.pid
    assert worker.terminate() == 0
    assert control_plane.terminate() == 0


def test_a_worker_that_finds_nobody_says_so_and_can_be_stopped(cluster: Cluster) -> None:
    worker = cluster.program("lonely", "worker", "start")
    until(lambda: "no control plane yet" in worker.log, 30, "the warning")
    assert "start one: fastworker start" in worker.log
    assert "nobody listens there" in worker.log
    assert worker.terminate() == 0


def test_the_own_worker_works_only_while_no_other_does(cluster: Cluster) -> None:
    control_plane = cluster.start()
    [own] = [child.pid for child in control_plane.children()]
    assert runs_in(cluster) == own

    worker = cluster.worker()
    until(lambda: runs_in(cluster) == worker.pid, what="the subworker's turn")
    assert {runs_in(cluster) for _ in range(20)} == {worker.pid}

    assert worker.terminate() == 0
    assert runs_in(cluster) == own

    again = cluster.worker(name="second")
    assert {runs_in(cluster) for _ in range(5)} == {again.pid}
    again.kill()
    assert runs_in(cluster) == own


def test_the_own_worker_takes_what_the_subworker_does_not_know(cluster: Cluster) -> None:
    module = "from fastworker import task\n\n@task\ndef other() -> int:\n    return 1\n"
    (cluster.folder / "other.py").write_text(module)
    control_plane = cluster.start("tasks")
    cluster.worker("other")
    [own] = [child.pid for child in control_plane.children()]
    assert cluster.client.result(cluster.client.delay("other"), 20) == 1
    assert runs_in(cluster) == own


def test_one_process_does_it_all(cluster: Cluster) -> None:
    control_plane = cluster.start("--in-process")
    assert control_plane.children() == []
    assert runs_in(cluster) == control_plane.pid
    assert cluster.client.result(cluster.client.delay("add_async", 1, 2), 20) == 3
    assert control_plane.terminate() == 0


def test_one_process_gives_way_to_a_subworker_too(cluster: Cluster) -> None:
    control_plane = cluster.start("--in-process")
    worker = cluster.worker()
    assert {runs_in(cluster) for _ in range(10)} == {worker.pid}
    assert worker.terminate() == 0
    assert runs_in(cluster) == control_plane.pid


def test_without_own_workers_a_task_waits_and_why_says_so(cluster: Cluster) -> None:
    control_plane = cluster.start("--processes", "0")
    assert control_plane.children() == []
    task_id = cluster.client.delay("add", 1, 2)
    done = cluster.run("why", task_id)
    assert "no worker is connected" in done.out
    assert "try: fastworker worker start" in done.out
    cluster.worker()
    assert cluster.client.result(task_id, 20) == 3


def test_two_own_processes_share_the_work(cluster: Cluster) -> None:
    control_plane = cluster.start("--processes", "2", "--concurrency", "1")
    own = {child.pid for child in control_plane.children()}
    assert len(own) == 2
    ids = [cluster.client.delay("nap", 0.3) for _ in range(4)]
    for task_id in ids:
        cluster.client.result(task_id, 20)
    assert {event.pid for event in cluster.journal.events("start")} == own
    assert control_plane.terminate() == 0
    assert control_plane.children() == []


def test_an_own_worker_that_dies_is_replaced(cluster: Cluster) -> None:
    control_plane = cluster.start()
    [child] = control_plane.children()
    task_id = cluster.client.delay("nap", 1.0, "survived")
    until(lambda: cluster.journal.count("start"), what="the start")
    child.kill()
    assert cluster.client.result(task_id, 20) == "survived"
    assert "SIGKILL" in control_plane.log
    assert [event.attempt for event in cluster.journal.events("start")] == [1, 2]


def test_memory_only_loses_the_queue_and_says_so(cluster: Cluster) -> None:
    control_plane = cluster.start("--store", "memory")
    assert "the queue is lost when this process ends" in control_plane.log
    client = cluster.client
    client.pause(queue="default")
    task_id = client.delay("add", 1, 2)
    assert control_plane.terminate() == 0
    assert not (cluster.folder / ".fastworker").exists()
    cluster.start("--store", "memory")
    assert cluster.run("status", task_id).code == 3


def test_a_worker_name_is_used_once(cluster: Cluster) -> None:
    cluster.start("--processes", "0")
    cluster.worker(name="twin")
    second = cluster.program("impostor", "worker", "start", "--name", "twin")
    assert second.wait(20) != 0
    assert "another worker is called 'twin'" in second.log
    assert "Traceback" not in second.log


def test_a_worker_without_tasks_says_it_loudly(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start("--processes", "0")
    (cluster.folder / "tasks.py").unlink()
    worker = cluster.worker()
    assert "NO TASK FUNCTIONS" in worker.log


def test_modules_from_the_environment_and_from_pyproject(cluster: Cluster) -> None:
    (cluster.folder / "app").mkdir()
    (cluster.folder / "app" / "jobs.py").write_text(
        "from fastworker import task\n\n@task\ndef job() -> str:\n    return 'job'\n"
    )
    (cluster.folder / "tasks.py").unlink()
    control_plane = cluster.start(FASTWORKER_TASK_MODULES="app.jobs")
    assert cluster.client.result(cluster.client.delay("job"), 20) == "job"
    assert control_plane.terminate() == 0
    (cluster.folder / "pyproject.toml").write_text('[tool.fastworker]\nmodules = ["app/jobs.py"]\nconcurrency = 3\n')
    cluster.start()
    assert cluster.client.result(cluster.client.delay("job"), 20) == "job"
    assert [worker.slots for worker in cluster.client.workers()] == [3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_tasks_end(cluster: Cluster, number: signal.Signals) -> None:
    cluster.start("--processes", "0")
    worker = cluster.worker()
    task_id = cluster.client.delay("nap", 1.0, "slept")
    until(lambda: cluster.journal.count("start"), what="the start")
    worker.signal(number)
    assert worker.wait() == 0
    assert cluster.client.result(task_id, 10) == "slept"
    assert cluster.client.info(task_id).attempt == 1


def test_what_outlasts_the_grace_period_is_handed_back(cluster: Cluster) -> None:
    cluster.start("--processes", "0")
    first = cluster.worker("--grace", "0.5", name="first")
    ids = [cluster.client.delay(name, 4.0, "slept") for name in ("nap", "nap_async")]
    until(lambda: cluster.journal.count("start") == 2, what="both starts")
    assert first.terminate(10) == 0
    cluster.worker(name="second")
    for task_id in ids:
        assert cluster.client.result(task_id, 20) == "slept"
        info = cluster.client.info(task_id)
        assert (info.attempt, info.crashes) == (2, 0)


def test_a_second_signal_ends_a_worker_now(cluster: Cluster) -> None:
    cluster.start("--processes", "0")
    worker = cluster.worker()
    cluster.client.delay("nap", 60)
    until(lambda: cluster.journal.count("start"), what="the start")
    worker.signal(signal.SIGTERM)
    until(lambda: "drains" in worker.log, what="the drain")
    worker.signal(signal.SIGTERM)
    assert worker.wait(5) == 1


def test_a_supervisor_keeps_its_worker_processes_alive_and_drains_them(cluster: Cluster) -> None:
    cluster.start("--processes", "0")
    supervisor = cluster.worker("--processes", "2", "--concurrency", "1", name="team", wait=False)
    until(lambda: cluster.workers() == {"team-1", "team-2"}, 30, "both workers")
    ids = [cluster.client.delay("nap", 0.5) for _ in range(2)]
    for task_id in ids:
        cluster.client.result(task_id, 20)
    first, _second = sorted({event.pid for event in cluster.journal.events("start")})

    next(child for child in supervisor.children() if child.pid == first).kill()
    until(lambda: "SIGKILL" in supervisor.log, 10, "the report")

    def replaced() -> bool:
        pids = {worker.pid for worker in cluster.client.workers() if worker.connected}
        return len(pids) == 2 and first not in pids

    until(replaced, 30, "the replacement")

    task_id = cluster.client.delay("nap", 1.0, "slept")
    until(lambda: cluster.journal.count("start") == 3, what="the start")
    assert supervisor.terminate() == 0
    assert cluster.client.result(task_id, 10) == "slept"
    assert cluster.client.info(task_id).attempt == 1
    assert supervisor.children() == []


def test_supervised_workers_end_with_their_supervisor(cluster: Cluster) -> None:
    cluster.start("--processes", "0")
    supervisor = cluster.worker("--processes", "2", name="team", wait=False)
    until(lambda: len(cluster.workers()) == 2, 30, "both workers")
    children = supervisor.children()
    supervisor.kill()
    until(lambda: not any(child.is_running() for child in children), 20, "the end of the workers")


def test_a_worker_that_keeps_dying_at_its_start_is_reported_and_the_control_plane_stays(cluster: Cluster) -> None:
    module = "import ctypes\n\nimport fastworker\n\nctypes.string_at(0)\n"
    (cluster.folder / "tasks.py").write_text(module)
    control_plane = cluster.start(wait=False)
    cluster.await_listening(control_plane)
    until(lambda: "time in a row so soon; what it said is above" in control_plane.log, 30, "the second death")
    assert "Fatal Python error: Segmentation fault" in control_plane.log
    assert 'tasks.py", line 5' in control_plane.log
    assert cluster.client.stats().workers == 0
    (cluster.folder / "tasks.py").write_text(
        "from fastworker import task\n\n@task\ndef mended() -> int:\n    return 1\n"
    )
    assert cluster.client.result(cluster.client.delay("mended"), 30) == 1


def known_workers(cluster: Cluster) -> set[str]:
    """The workers that a control plane would await now, if it started on this store."""
    with closing(sqlite3.connect(cluster.folder / ".fastworker" / "queue.db")) as db:
        [text] = db.execute("SELECT value FROM facts WHERE name = 'workers'").fetchone()
    return {worker["name"] for worker in json.loads(text)}


def test_a_worker_that_is_awaited_is_awaited_by_the_next_control_plane_too(cluster: Cluster) -> None:
    """Else its tasks would run at another worker, though it lives."""
    control_plane = cluster.start("--processes", "0")
    slow = cluster.worker(name="slow")
    ids = [cluster.client.delay("nap", 0.5, f"slow {n}") for n in range(4)]
    cluster.await_starts(4)
    slow.signal(signal.SIGSTOP)
    control_plane.kill()
    control_plane = cluster.start("--processes", "0")
    cluster.worker(name="quick")
    until(lambda: {"slow", "quick"} <= known_workers(cluster), 20, "the store to know both workers")
    control_plane.kill()
    control_plane = cluster.start("--processes", "0")
    until(lambda: "quick joined" in control_plane.log, 20, "the quick worker")
    assert "recovered 4 open tasks; 2 workers are awaited" in control_plane.log
    slow.signal(signal.SIGCONT)
    for task_id in ids:
        cluster.client.result(task_id, 30)
    assert {cluster.client.info(task_id).attempt for task_id in ids} == {1}
