"""Commands that look: status, result, why, list, workers, queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from fastworker.cli.output import AsJson, Url, connect, moment, print_json, print_pairs, print_table, say
from fastworker.errors import ConfigurationError
from fastworker.lifecycle import State
from fastworker.tasks import TaskInfo

TaskId = Annotated[str, typer.Argument(help="The task id.")]


def status(task_id: TaskId, url: Url = None, as_json: AsJson = False) -> None:
    """Show where a task stands."""
    with connect(url) as client:
        info = client.info(task_id)
    if as_json:
        print_json(info)
        return
    error = f"{info.error.type}: {info.error.message}" if info.error else None
    progress = f"{info.progress[0]:.0%} {info.progress[1]}" if info.progress else None
    print_pairs(
        [
            ("task", info.id),
            ("name", info.name),
            ("state", f"{info.state} ({info.reason})" if info.reason else info.state),
            ("queue", f"{info.queue}, {info.priority}"),
            ("attempt", info.attempt or None),
            ("submitted", moment(info.submitted_at)),
            ("due", moment(info.due_at)),
            ("started", moment(info.started_at)),
            ("finished", moment(info.finished_at)),
            ("worker", info.worker),
            ("progress", progress),
            ("workflow", info.ties.workflow),
            ("needs", " ".join(info.ties.needs)),
            ("arguments", info.args),
            ("result", "expired" if info.result_expired else info.result),
            ("error", error),
        ]
    )
    for line in info.log:
        say(f"  | {line}")
    if info.error:
        say(info.error.traceback)


def result(
    task_id: TaskId,
    wait_for: Annotated[float | None, typer.Option(help="Wait no longer than these seconds.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Wait for a task, and print its result."""
    with connect(url) as client:
        value = client.result(task_id, wait_for)
    print_json({"id": task_id, "result": value} if as_json else value)


def why(task_id: TaskId, url: Url = None, as_json: AsJson = False) -> None:
    """Say why a task is not running."""
    with connect(url) as client:
        explanation = client.why(task_id)
    if as_json:
        print_json(explanation)
        return
    say(f"{explanation.state}: {explanation.reason}")
    if explanation.advice:
        say(f"try: {explanation.advice}")


def list_tasks(
    state: Annotated[str | None, typer.Option(help="Only tasks in this state.")] = None,
    name: Annotated[str | None, typer.Option(help="Only tasks of this name.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only tasks of this queue.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 20,
    before: Annotated[int | None, typer.Option(help="Only tasks with a smaller number: the next page.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, newest first."""
    if state is not None and state not in list(State):
        raise ConfigurationError(f"--state {state!r}: use one of {', '.join(s for s in State if s is not State.NEW)}")
    with connect(url) as client:
        tasks = client.list(state=state, name=name, queue=queue, limit=limit, before=before)
    if as_json:
        print_json(tasks)
        return
    print_tasks(tasks, "no tasks. Submit one: fastworker submit NAME --args JSON")


def print_tasks(tasks: Sequence[TaskInfo], empty: str) -> None:
    """Tasks as a table."""
    rows = [
        (task.seq, task.id, task.name, task.state, task.priority, task.attempt, moment(task.submitted_at), task.worker)
        for task in tasks
    ]
    print_table(("#", "id", "name", "state", "priority", "attempt", "submitted", "worker"), rows, empty)


def workers(url: Url = None, as_json: AsJson = False) -> None:
    """List the connected workers."""
    with connect(url) as client:
        views = client.workers()
    if as_json:
        print_json(views)
        return
    rows = [
        (
            view.name,
            "own" if view.own else "",
            f"{view.assigned}/{view.slots}",
            view.finished,
            view.failed,
            "paused" if view.paused else "" if view.connected else "away",
            f"{view.silent_for:.0f} s ago",
            view.release,
        )
        for view in views
    ]
    columns = ("worker", "", "tasks", "finished", "failed", "state", "heard", "release")
    print_table(columns, rows, "no worker is connected. Start one: fastworker worker start MODULE")


def queues(url: Url = None, as_json: AsJson = False) -> None:
    """List what is queued, by queue and task name."""
    with connect(url) as client:
        lanes = client.queues()
    if as_json:
        print_json(lanes)
        return
    rows = [
        (
            lane.queue,
            lane.name,
            lane.key,
            sum(lane.queued.values()),
            _by_priority(lane.queued),
            moment(lane.oldest),
            lane.held,
        )
        for lane in lanes
    ]
    print_table(("queue", "name", "key", "queued", "by priority", "oldest", "held"), rows, "nothing is queued")


def _by_priority(queued: dict[str, int]) -> str:
    return ", ".join(f"{priority} {count}" for priority, count in queued.items())
