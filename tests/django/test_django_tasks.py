"""Django's own tasks, with FastWorker as their backend: a project as a user has it, and real processes."""

from __future__ import annotations

import pytest

from fastworker.integrations.django_tasks import priority_of
from tests.support.cluster import Cluster

SETTINGS = """
SECRET_KEY = "not secret"
USE_TZ = True
INSTALLED_APPS = ["shop"]
TASKS = {"default": {"BACKEND": "fastworker.integrations.django_tasks.FastWorker", "QUEUES": ["default", "mail"]}}
"""

TASKS = """
from django.tasks import task


@task
def total(*, prices: list[int]) -> int:
    return sum(prices)


@task(priority=10, queue_name="mail")
async def send(to: str, subject: str = "hello") -> str:
    return f"{subject} to {to}"


@task(takes_context=True)
def which(context, order: int) -> list:
    return [context.task_result.id, context.attempt, order]


@task
def broken() -> None:
    raise ValueError("no luck")
"""

PROGRAM = """
import asyncio, datetime, time
import django
from django.utils import timezone

django.setup()
from django.tasks.exceptions import TaskResultDoesNotExist, TaskResultMismatch
from shop.tasks import broken, send, total, which


def ended(result):
    deadline = time.monotonic() + 15
    while not result.is_finished and time.monotonic() < deadline:
        time.sleep(0.02)
        result.refresh()
    return result


first = total.enqueue(prices=[1, 2, 3])
assert not first.is_finished
assert ended(first).return_value == 6, first
assert first.kwargs == {"prices": [1, 2, 3]} and first.attempts == 1
assert first.enqueued_at <= first.started_at <= first.finished_at
second = asyncio.run(send.aenqueue("ada"))
assert ended(second).return_value == "hello to ada"
third = ended(which.enqueue(7))
assert third.return_value == [third.id, 1, 7], third
failed = ended(broken.enqueue())
assert failed.status == "FAILED" and failed.errors[0].exception_class is ValueError
assert "no luck" in failed.errors[0].traceback
later = total.using(run_after=timezone.now() + datetime.timedelta(hours=1)).enqueue(prices=[])
assert later.status == "READY"
assert total.get_result(first.id).return_value == 6
for id, error in (("nothing", TaskResultDoesNotExist), (second.id, TaskResultMismatch)):
    try:
        total.get_result(id)
    except error:
        continue
    raise AssertionError(error)
print(later.id, second.id)
"""


@pytest.mark.integration
def test_a_project_enqueues_its_tasks_and_reads_their_results(cluster: Cluster) -> None:
    (cluster.folder / "shop").mkdir()
    (cluster.folder / "shop" / "__init__.py").touch()
    (cluster.folder / "shop" / "tasks.py").write_text(TASKS)
    (cluster.folder / "project.py").write_text(SETTINGS)
    cluster.environment |= {"DJANGO_SETTINGS_MODULE": "project", "FASTWORKER_URL": cluster.url}
    cluster.start("fastworker.integrations.django_project")
    said = cluster.script(PROGRAM)
    assert said.code == 0, said.err
    later, sent = map(cluster.client.info, said.out.split())
    assert (later.name, later.state) == ("shop.tasks.total", "scheduled")
    assert (sent.name, sent.priority, sent.queue) == ("shop.tasks.send", "high", "mail")


def test_priorities_have_names() -> None:
    assert [priority_of(number) for number in (100, 51, 50, 1, 0, -1, -100)] == [
        "critical", "critical", "high", "high", "normal", "low", "low",
    ]  # fmt: skip
