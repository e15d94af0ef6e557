"""Something to look at: tasks in every state, a paused queue, failures in groups, actions in the audit."""

from __future__ import annotations

from urllib.parse import quote

from fastworker import group
from fastworker.portal import wait_for
from tests.dashboard.site import Site
from tests.support.sample_tasks import add, echo
from tests.support.waiting import until


def play(site: Site) -> dict[str, str]:
    """Play it; ids of tasks by what they show, and the name of the worker."""
    client = site.cluster.client
    for number in range(60):
        client.submit("add", [number, number])
    failed = [site.submit("fail", f"payment {4700 + n} was declined", tags=["billing"]) for n in range(4)]
    for number in range(3):
        site.submit("fail", f"connection to 10.0.0.{number} timed out", queue="mail")
    site.http.post("/api/v1/queues/reports/pause")
    queued = site.submit("add", 1, 2, queue="reports", priority="critical")
    site.submit("add", 3, 4, queue="reports")
    site.submit("nobody_knows", 1, queue="orphans")
    scheduled = site.submit("add", 5, 6, delay=3600)
    running = site.submit("nap", 600, 1)
    workflow = str(wait_for((group([add.s(1, 2), add.s(3, 4)]).then(echo.s())).submit()))
    retried = str(client.submit("flaky", [2]))
    wait_for(client.client.add_schedule("nightly", "add", [1, 2], cron="0 6 * * *"))
    until(lambda: site.count("state:failed") == 7 and site.count("state:running") == 1, 30, "the scene")
    for task_id in (workflow, retried):
        client.result(task_id, 30)
    return {
        "failed": failed[0],
        "queued": queued,
        "scheduled": scheduled,
        "running": running,
        "workflow": workflow,
        "retried": retried,
        "worker": quote(site.json("/api/v1/workers")[0]["name"], safe=""),
    }


def paths(ids: dict[str, str]) -> dict[str, str]:
    """Every page, by name."""
    return {
        "overview": "/",
        "tasks": "/tasks",
        "search": "/tasks?q=state:failed+error:declined",
        "search-error": "/tasks?q=colour:blue",
        "search-empty": "/tasks?q=zebrafish",
        "tasks-by-name": "/tasks?group=name",
        "task": f"/tasks/{ids['failed']}",
        "task-queued": f"/tasks/{ids['queued']}",
        "task-running": f"/tasks/{ids['running']}",
        "workflow": f"/tasks/{ids['workflow']}",
        "task-retried": f"/tasks/{ids['retried']}",
        "task-missing": "/tasks/01900000-0000-7000-8000-000000000000",
        "failed": "/failed",
        "queues": "/queues",
        "workers": "/workers",
        "worker": f"/workers/{ids['worker']}",
        "worker-missing": "/workers/nobody",
        "types": "/types",
        "schedules": "/schedules",
        "type": "/types/add",
        "audit": "/audit",
        "about": "/about",
    }
