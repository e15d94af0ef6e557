"""Commands that change something: cancel, retry, pause, resume."""

from __future__ import annotations

from typing import Annotated

import typer

from fastworker.cli.exits import NOT_FOUND, TASK_FAILED
from fastworker.cli.inspect import TaskId
from fastworker.cli.output import AsJson, Url, connect, console, print_json
from fastworker.errors import ConfigurationError

Queue = Annotated[str | None, typer.Option("--queue", help="A whole queue.")]
Name = Annotated[str | None, typer.Option("--name", help="All tasks of a name.")]

_MEANING = {
    "was_queued": "it had not started, and won't",
    "interrupted": "it was running and has been stopped",
    "asked": "it runs in a thread, which can't be stopped: it was asked to stop",
    "killed": "its process was ended",
    "already_done": "it had ended already",
    "not_found": "there is no such task",
}


def cancel(task_id: TaskId, url: Url = None, as_json: AsJson = False) -> None:
    """Cancel a task."""
    with connect(url) as client:
        answer = client.cancel(task_id)
    if as_json:
        print_json({"id": task_id, "answer": answer})
    else:
        console.print(f"{answer}: {_MEANING[answer]}", markup=False)
    if answer in ("already_done", "not_found"):
        raise typer.Exit(TASK_FAILED if answer == "already_done" else NOT_FOUND)


def retry(task_id: TaskId, url: Url = None, as_json: AsJson = False) -> None:
    """Run a task again that has ended."""
    with connect(url) as client:
        queued = client.requeue(task_id)
    if as_json:
        print_json({"id": task_id, "queued": queued})
    else:
        console.print("queued again" if queued else "it has not ended yet: nothing was changed")
    if not queued:
        raise typer.Exit(TASK_FAILED)


def pause(queue: Queue = None, name: Name = None, url: Url = None) -> None:
    """Start no more tasks of a queue or of a name; those that run go on."""
    _one_of(queue, name)
    with connect(url) as client:
        client.pause(queue=queue, name=name)
    console.print(f"paused: {queue or name}. To go on: fastworker resume", markup=False)


def resume(queue: Queue = None, name: Name = None, url: Url = None) -> None:
    """Undo `pause`."""
    _one_of(queue, name)
    with connect(url) as client:
        client.resume(queue=queue, name=name)
    console.print(f"resumed: {queue or name}", markup=False)


def _one_of(queue: str | None, name: str | None) -> None:
    if (queue is None) == (name is None):
        raise ConfigurationError("say either --queue QUEUE or --name NAME")
