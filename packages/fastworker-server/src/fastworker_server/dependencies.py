"""Which waiting task needs which others, and what it gets of them.

A task that needs others waits until all of them have ended. What it gets of each is JSON, by task id: the result; with
`on_upstream_failure="run"` a description of the failure; with `"ignore"` nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic_core import to_json

from fastworker.lifecycle import Reason, State
from fastworker.protocol import MAX_PAYLOAD_BYTES
from fastworker.tasks import ErrorInfo, Task
from fastworker.upstream import LEFT_OUT, UpstreamFailure

_UPSTREAM: Final = "fastworker.UpstreamFailed"


class Dependencies:
    """Waiting tasks, by what they wait for."""

    def __init__(self) -> None:
        self._dependents: dict[str, dict[str, Task]] = {}
        self._failed: dict[str, dict[str, Task]] = {}  # because of which other one
        self._members: dict[str, dict[str, Task]] = {}  # open tasks of each workflow

    def add(self, task: Task, needed: str) -> None:
        """The task waits for that one."""
        self._dependents.setdefault(needed, {})[task.id] = task
        task.missing += 1

    def is_needed(self, task_id: str) -> bool:
        """Whether any task waits for this one."""
        return task_id in self._dependents

    def waiting_for(self, ended: Task) -> Iterable[Task]:
        """The tasks that waited for this one. They wait for it no more."""
        for task in self._dependents.pop(ended.id, {}).values():
            if task.state is State.WAITING:
                task.missing -= 1
                yield task

    def failed(self, task: Task, because: str) -> None:
        """A task has failed only because of that one."""
        self._failed.setdefault(because, {})[task.id] = task

    def failed_because_of(self, needed: str) -> list[Task]:
        """The tasks that failed only because of this one, as far as they are remembered."""
        return list(self._failed.get(needed, {}).values())

    def no_longer_failed(self, needed: str) -> None:
        """They run again, like this one."""
        self._failed.pop(needed, None)

    def forget(self, task: Task) -> None:
        """A task is remembered no more."""
        for needed in task.ties.needs:
            failed = self._failed.get(needed, {})
            if failed.pop(task.id, None) is not None and not failed:
                del self._failed[needed]

    def joined(self, task: Task) -> None:
        """A task of a workflow is open."""
        if task.ties.workflow is not None:
            self._members.setdefault(task.ties.workflow, {})[task.id] = task

    def left(self, task: Task) -> None:
        """It has ended."""
        members = self._members.get(task.ties.workflow or "")
        if members is not None:
            members.pop(task.id, None)
            if not members:
                del self._members[task.ties.workflow or ""]

    def members(self, workflow: str) -> list[Task]:
        """The open tasks of a workflow, in the order of their submission."""
        return list(self._members.get(workflow, {}).values())


def input_of(task: Task, needed: Task | None) -> str | ErrorInfo:
    """What a task gets of an ended one that it needs, as JSON; or why it can't go on."""
    if needed is None:
        return _failure("a task that it needs is gone: neither queued nor kept")
    if needed.state is State.SUCCEEDED and needed.result is not None:
        return needed.result
    match task.ties.on_upstream_failure:
        case "ignore":
            return LEFT_OUT
        case "run":
            return to_json(_describe(needed)).decode()
        case _ if needed.reason == Reason.UPSTREAM and needed.error is not None:
            return needed.error  # as it is: a sentence for each step would grow along a chain
        case _:
            return _failure(_sentence(needed), needed.error)


def too_large(task: Task) -> ErrorInfo | None:
    """The error if what it gets is more than arguments may be."""
    size = sum(map(len, (task.inputs or {}).values()))
    if size <= MAX_PAYLOAD_BYTES:
        return None
    limit = f"over the limit of {MAX_PAYLOAD_BYTES:,}"
    return _failure(f"the results that it needs take {size:,} bytes, {limit}: let them return references")


def _describe(needed: Task) -> UpstreamFailure:
    error = needed.error or ErrorInfo("", _sentence(needed))
    return UpstreamFailure(needed.id, needed.name, needed.state.value, error.type, error.message)


def _sentence(needed: Task) -> str:
    if needed.state is State.SUCCEEDED:
        return f"the result of {needed.name} ({needed.id}), which it needs, is no longer kept"
    error = f": {needed.error.type}: {needed.error.message}" if needed.error else ""
    return f"{needed.name} ({needed.id}), which it needs, has {_ended(needed.state)}{error}"


def _ended(state: State) -> str:
    return "failed" if state is State.FAILED else f"been {state}" if state is State.CANCELLED else str(state)


def _failure(message: str, cause: ErrorInfo | None = None) -> ErrorInfo:
    return ErrorInfo(_UPSTREAM, message, cause.traceback if cause else "", cause.place if cause else "")
