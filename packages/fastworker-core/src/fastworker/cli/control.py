"""Commands that change one thing: cancel, retry, priority, pause, resume."""

from __future__ import annotations

from typing import Annotated

import typer

from fastworker.cli.exits import NOT_FOUND, TASK_FAILED
from fastworker.cli.inspect import TaskId
from fastworker.cli.output import AsJson, Url, connect, print_json, say
from fastworker.cli.submit import parse_arguments
from fastworker.errors import ConfigurationError
from fastworker.tasks import Priority

Queue = Annotated[str | None, typer.Option("--queue", help="A whole queue.")]
Name = Annotated[str | None, typer.Option("--name", help="All tasks of a name.")]
Worker = Annotated[str | None, typer.Option("--worker", help="One worker, by its name.")]

_MEANING = {
    "was_queued": "it had not started, and won't",
    "interrupted": "it was running and has been stopped",
    "asked": "it runs in a thread, which can't be stopped: it was asked to stop",
    "killed": "its process was ended",
    "already_done": "it had ended already",
    "not_found": "there is no such task",
}


def cancel(
    task_id: TaskId,
    workflow: Annotated[bool, typer.Option("--workflow", help="All open tasks of its workflow.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a task, or its whole workflow."""
    if workflow:
        with connect(url) as client:
            count = client.cancel_workflow(task_id)
        print_json({"id": task_id, "cancelled": count}) if as_json else say(f"{count} tasks were open")
        return
    with connect(url) as client:
        answer = client.cancel(task_id)
    if as_json:
        print_json({"id": task_id, "answer": answer})
    else:
        say(f"{answer}: {_MEANING[answer]}")
    if answer in ("already_done", "not_found"):
        raise typer.Exit(TASK_FAILED if answer == "already_done" else NOT_FOUND)


def retry(
    task_id: TaskId,
    args: Annotated[str | None, typer.Option(help="JSON: other arguments than before.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Run a task again that has ended, and those that failed only because of it."""
    positions, keywords = parse_arguments(args) if args is not None else (None, None)
    with connect(url) as client:
        queued = client.requeue(task_id, positions, keywords)
    if as_json:
        print_json({"id": task_id, "queued": queued})
    else:
        say("queued again" if queued else "it has not ended yet: nothing was changed")
    if not queued:
        raise typer.Exit(TASK_FAILED)


def priority(
    task_id: TaskId,
    priority: Annotated[str, typer.Argument(help="critical, high, normal or low.")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Give an open task another priority."""
    wanted = read_priority(priority)
    with connect(url) as client:
        changed = client.reprioritise(task_id, wanted)
    if as_json:
        print_json({"id": task_id, "changed": changed})
    else:
        say(f"its priority is {wanted}" if changed else "it has ended: nothing was changed")
    if not changed:
        raise typer.Exit(TASK_FAILED)


def read_priority(text: str) -> Priority:
    """A priority as people write it; raises `ConfigurationError`."""
    if text.lower() not in list(Priority):
        raise ConfigurationError(f"{text!r} is no priority: use one of {', '.join(Priority)}")
    return Priority(text.lower())


def pause(queue: Queue = None, name: Name = None, worker: Worker = None, url: Url = None) -> None:
    """Start no more tasks of a queue, of a name or at a worker; those that run go on."""
    what = _one_of(queue, name, worker)
    with connect(url) as client:
        client.pause(queue=queue, name=name, worker=worker)
    say(f"paused: {what}. To go on: fastworker resume")


def resume(queue: Queue = None, name: Name = None, worker: Worker = None, url: Url = None) -> None:
    """Undo `pause`."""
    what = _one_of(queue, name, worker)
    with connect(url) as client:
        client.resume(queue=queue, name=name, worker=worker)
    say(f"resumed: {what}")


def _one_of(queue: str | None, name: str | None, worker: str | None) -> str:
    said = [value for value in (queue, name, worker) if value is not None]
    if len(said) != 1:
        raise ConfigurationError("say one of --queue QUEUE, --name NAME and --worker WORKER")
    return said[0]
