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
import datetime

from django.dispatch import receiver
from django.tasks import task
from django.tasks.signals import task_enqueued, task_finished, task_started
from fastworker import Retry
from tests.support.journal import write_down


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


@task(takes_context=True)
async def which_later(context, when: datetime.date) -> list:
    if context.attempt == 1:
        raise Retry(after=0.01)
    return [context.task_result.id, context.attempt, when.year]


@receiver([task_enqueued, task_started, task_finished])
def note(signal, sender, task_result, **_) -> None:
    names = {task_enqueued: "enqueued", task_started: "started", task_finished: "finished"}
    said = [names[signal], str(task_result.status), [error.exception_class_path for error in task_result.errors]]
    write_down("signal", task_result.id, task_result.attempts, said)
    if signal is not task_enqueued:
        raise ValueError("this must not harm the task")
"""

PROGRAM = """
import asyncio, datetime, time
import django
from django.utils import timezone

django.setup()
from django.tasks.exceptions import TaskResultDoesNotExist, TaskResultMismatch
from shop.tasks import broken, send, total, which, which_later


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
snoozed = ended(which_later.enqueue("2027-01-31"))
assert snoozed.return_value == [snoozed.id, 2, 2027], snoozed
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
print(later.id, second.id, snoozed.id, failed.id)
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
    later, sent, snoozed, failed = map(cluster.client.info, said.out.split())
    assert (later.name, later.state) == ("shop.tasks.total", "scheduled")
    assert (sent.name, sent.priority, sent.queue) == ("shop.tasks.send", "high", "mail")
    assert signals(cluster, later.id) == [("enqueued", "READY", [], 0)]
    assert signals(cluster, sent.id) == [
        ("enqueued", "READY", [], 0), ("started", "RUNNING", [], 1), ("finished", "SUCCESSFUL", [], 1),
    ]  # fmt: skip
    assert signals(cluster, snoozed.id) == [
        ("enqueued", "READY", [], 0), ("started", "RUNNING", [], 1),
        ("started", "RUNNING", [], 2), ("finished", "SUCCESSFUL", [], 2),
    ]  # fmt: skip
    assert signals(cluster, failed.id)[1:] == [
        ("started", "RUNNING", [], 1), ("finished", "FAILED", ["builtins.ValueError"], 1),
    ]  # fmt: skip


def signals(cluster: Cluster, task_id: str) -> list[tuple[str, str, list[str], int]]:
    """The signals of Django that were sent for a task, in the application and in the worker, as its result was then."""
    sent = [event for event in cluster.journal.events("signal") if event.task == task_id]
    return sorted(
        ((*event.payload, event.attempt) for event in sent), key=lambda said: (said[3], said[0] == "finished")
    )


def test_priorities_have_names() -> None:
    assert [priority_of(number) for number in (100, 51, 50, 1, 0, -1, -100)] == [
        "critical", "critical", "high", "high", "normal", "low", "low",
    ]  # fmt: skip
