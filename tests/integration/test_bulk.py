"""Actions on all tasks that match, with progress and audit, on a real control plane."""

from __future__ import annotations

from fastworker import BlockingClient
from fastworker.activity import BulkView
from fastworker.portal import wait_for
from tests.support.cluster import Cluster
from tests.support.waiting import until


def ended(client: BlockingClient, job_id: str) -> BulkView:
    """The job, once it has ended."""

    def look() -> BulkView | None:
        jobs = wait_for(client.client.bulk_jobs())
        return next((job for job in jobs if job.id == job_id and job.ended is not None), None)

    job = until(look, 30, "the end of the job")
    assert job is not None
    return job


def failures(running: Cluster, count: int, tag: str) -> list[str]:
    client = running.client
    ids = [client.submit("fail", [f"number {n}"], tags=[tag]) for n in range(count)]
    until(lambda: client.facets(f"state:failed tag:{tag}").total == count, 30, "the failures")
    return ids


def test_all_that_match_are_retried_and_no_others(running: Cluster) -> None:
    client = running.client
    failures(running, 5, "other")
    ids = failures(running, 250, "mine")
    job = ended(client, wait_for(client.client.start_bulk("retry", "state:failed tag:mine", by="ann")))
    assert (job.state, job.done, job.total, job.by) == ("done", 250, 250, "ann")
    until(lambda: client.facets("state:failed tag:mine").total == 250, 30, "the failures again")
    assert {client.info(task_id).attempt for task_id in ids} == {2}
    assert {task.attempt for task in client.search("tag:other").tasks} == {1}
    rows = wait_for(client.client.audit())
    assert (rows[0].who, rows[0].action, rows[0].target) == ("ann", "retry", "state:failed tag:mine")


def test_deleted_tasks_are_gone_from_every_count_and_say_so(running: Cluster) -> None:
    client = running.client
    ids = failures(running, 120, "gone")
    before = client.stats().states["failed"]
    job = ended(client, wait_for(client.client.start_bulk("delete", "tag:gone", by="ann")))
    assert job.done == 120
    assert client.stats().states.get("failed", 0) == before - 120
    assert client.facets().states.get("failed", 0) == before - 120
    assert client.search("tag:gone").tasks == []
    assert sum(group.count for group in client.failures()) == before - 120
    assert client.search(ids[0]).tasks == []


def test_queued_tasks_are_cancelled_and_running_or_ended_ones_of_others_are_not(running: Cluster) -> None:
    client = running.client
    client.pause(queue="held")
    for number in range(150):
        client.submit("add", [number, 1], queue="held")
    job = ended(client, wait_for(client.client.start_bulk("cancel", "queue:held", by="ann")))
    assert (job.state, job.done) == ("done", 150)
    assert client.facets("queue:held").states == {"cancelled": 150}
    client.resume(queue="held")


def test_a_job_can_be_stopped(running: Cluster) -> None:
    client = running.client
    client.pause(queue="many")
    for _ in range(4):
        wait_for(client.client.submit_many("add", [(n, 1) for n in range(1000)], queue="many"))
    job_id = wait_for(client.client.start_bulk("cancel", "queue:many", by="ann"))
    assert wait_for(client.client.stop_bulk(job_id, by="ann"))
    job = ended(client, job_id)
    assert job.state == "stopped"
    assert job.done < 4000
    assert not wait_for(client.client.stop_bulk(job_id))
    ended(client, wait_for(client.client.start_bulk("cancel", "queue:many")))
    client.resume(queue="many")


def test_a_paused_worker_gets_no_new_tasks_until_it_may_again(running: Cluster) -> None:
    client = running.client
    [worker] = client.workers()
    wait_for(client.client.pause(worker=worker.name, by="ann"))
    assert client.workers()[0].paused
    task_id = client.submit("add", [1, 2])
    assert client.why(task_id).code == "workers paused"
    wait_for(client.client.resume(worker=worker.name, by="ann"))
    assert client.result(task_id, 10) == 3
    expected = [("resume", worker.name), ("pause", worker.name)]
    until(lambda: [(row.action, row.target) for row in wait_for(client.client.audit(limit=2))] == expected)


def test_waiting_tasks_get_another_priority_all_at_once(running: Cluster) -> None:
    client = running.client
    client.pause(queue="later")
    handles = wait_for(client.client.submit_many("add", [(n, 1) for n in range(250)], queue="later"))
    job = ended(client, wait_for(client.client.start_bulk("reprioritise", "queue:later", priority="high")))
    assert (job.state, job.done) == ("done", 250)
    assert {client.info(handle).priority for handle in handles[::50]} == {"high"}
    assert wait_for(client.client.facets("queue:later")).priorities == {"high": 250}
    ended(client, wait_for(client.client.start_bulk("cancel", "queue:later")))
    client.resume(queue="later")


def test_activity_tells_what_the_counters_tell(running: Cluster) -> None:
    client = running.client
    running.client.result(client.submit("add", [1, 2]), 10)
    activity = wait_for(client.client.activity())
    stats = client.stats()
    assert activity.states == stats.states
    assert activity.version == stats.version
    types = {known.name: known for known in activity.types}
    assert types["add"].succeeded >= 1
    assert types["add"].run_p50 is not None
    assert sum(activity.series["24h"].succeeded) >= 1
