"""Commands that look: status, result, why, list, workers, queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from fastworker.cli.output import AsJson, Url, connect, moment, print_json, print_list, print_pairs, say
from fastworker.cli.waiting import await_result
from fastworker.errors import ConfigurationError
from fastworker.lifecycle import State
from fastworker.sizes import megabytes
from fastworker.tasks import TaskInfo
from fastworker.views import LaneView, WorkerView

TaskId = Annotated[str, typer.Argument(help="The task id.")]


def status(task_id: TaskId, url: Url = None, as_json: AsJson = False) -> None:
    """Show where a task stands."""
    with connect(url) as client:
        info = client.info(task_id)
    if as_json:
        print_json(info)
        return
    error = f"{info.error.type}: {info.error.message}" if info.error else None
    progress = f"{info.progress[0]:.0%} {info.progress[1]}" if info.progress else info.sealed_progress and "sealed"
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
        value = await_result(client, task_id, wait_for)
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
    print_list(tasks, as_json, TASK_COLUMNS, task_row, "no tasks. Submit one: fastworker submit NAME --args JSON")


TASK_COLUMNS = ("#", "id", "name", "state", "priority", "attempt", "submitted", "worker")


def task_row(task: TaskInfo) -> Sequence[object]:
    """A task as a row of a table."""
    submitted = moment(task.submitted_at)
    return task.seq, task.id, task.name, task.state, task.priority, task.attempt, submitted, task.worker


def workers(url: Url = None, as_json: AsJson = False) -> None:
    """List the connected workers."""
    with connect(url) as client:
        views = client.workers()
    columns = ("worker", "", "tasks", "finished", "failed", "memory", "state", "heard", "release")
    empty = "no worker is connected. Start one: fastworker worker start MODULE"
    print_list(views, as_json, columns, _worker_row, empty)


def _worker_row(view: WorkerView) -> Sequence[object]:
    return (
        view.name,
        "own" if view.own else "",
        f"{view.assigned}/{view.slots}",
        view.finished,
        view.failed,
        megabytes(view.memory) if view.memory is not None else "",
        "paused" if view.paused else "" if view.connected else "away",
        f"{view.silent_for:.0f} s ago",
        view.release,
    )


def queues(url: Url = None, as_json: AsJson = False) -> None:
    """List what is queued, by queue and task name."""
    with connect(url) as client:
        lanes = client.queues()
    columns = ("queue", "name", "key", "queued", "by priority", "oldest", "held")
    print_list(lanes, as_json, columns, _lane_row, "nothing is queued")


def _lane_row(lane: LaneView) -> Sequence[object]:
    by_priority = ", ".join(f"{priority} {count}" for priority, count in lane.queued.items())
    return lane.queue, lane.name, lane.key, sum(lane.queued.values()), by_priority, moment(lane.oldest), lane.held
