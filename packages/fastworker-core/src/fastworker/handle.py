"""The handle of a submitted task: its id, with which its result is fetched."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

from pydantic import ValidationError
from pydantic_core import from_json

from fastworker.codec import Signature
from fastworker.ending import Ending
from fastworker.errors import (
    EventsLost,
    ResultExpired,
    ResultTypeError,
    TaskCancelled,
    TaskCrashed,
    TaskExpired,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
    UpstreamFailed,
)
from fastworker.lifecycle import TERMINAL, Reason, State
from fastworker.portal import wait_for
from fastworker.protocol import Change, Ended, Note, Submission
from fastworker.sealing import refuse_if_sealed, sealer
from fastworker.tasks import ErrorInfo, TaskInfo
from fastworker.views import WorkflowNode

CancelAnswer = Literal["was_queued", "interrupted", "asked", "killed", "already_done", "not_found"]


class TaskClient(Protocol):
    """What task functions and handles need of a client."""

    async def bridge[T](self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a call in the client's own event loop."""

    async def submit_function(
        self, signature: Signature | None, submission: Submission, *, strict: bool = False
    ) -> TaskHandle[Any]:
        """Queue a task."""

    async def submit_functions(
        self,
        signatures: Iterable[Signature | None],
        submissions: Sequence[Submission],
        *,
        strict: bool = False,
        whole: bool = False,
    ) -> list[TaskHandle[Any]]:
        """Queue many."""

    async def wait(self, task_id: str, timeout: float | None = None, ending: Ending | None = None) -> Ended:
        """Wait for the end of a task."""

    async def info(self, task_id: str) -> TaskInfo:
        """All that is known of it."""

    async def cancel(self, task_id: str) -> CancelAnswer:
        """Cancel it."""

    async def cancel_workflow(self, task_id: str) -> int:
        """Cancel all of its workflow."""

    async def workflow(self, task_id: str) -> Sequence[WorkflowNode]:
        """All tasks of its workflow."""

    def notes(self, task_id: str) -> AsyncGenerator[Note]:
        """What it says."""

    def stream(self, task_id: str) -> AsyncGenerator[str]:
        """What it yields, as JSON."""

    def events(self, task_id: str | None = None, name: str | None = None) -> AsyncIterator[Change]:
        """Its moves."""

    async def close(self) -> None:
        """Disconnect."""


class TaskHandle[R](str):
    """A task that was submitted. It is its id, so it can be put in JSON, a log or a database as it is.

    Awaiting it gives the result.
    """

    __slots__ = ("_client", "_ending", "_signature")
    _client: TaskClient
    _ending: Ending | None
    _signature: Signature | None

    @classmethod
    def make(
        cls, task_id: str, client: TaskClient, signature: Signature | None = None, ending: Ending | None = None
    ) -> TaskHandle[R]:
        """A handle for this id.

        Args:
            signature: decodes the result as the annotated type; without it the result is plain JSON data.
            ending: receives the end of the task, if the client watches it already.
        """
        handle: TaskHandle[R] = cls(task_id)
        handle._client = client
        handle._signature = signature
        handle._ending = ending
        return handle

    @property
    def id(self) -> str:
        """The task id as a plain string."""
        return str.__str__(self)

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end of the task.

        Args:
            timeout: seconds to wait; the task goes on if they pass.

        Raises:
            ResultTimeout: the time passed.
            TaskFailed, TaskCrashed, TaskTimeout, TaskCancelled, TaskExpired: how the task ended.
            ResultExpired: the result is no longer kept.
            ResultTypeError: the result is not of the annotated type.
            TaskNotFound: there is no such task.
        """
        ended = self._ending.ended if self._ending is not None else None
        if ended is None:
            ended = await self._client.bridge(lambda: self._client.wait(self.id, timeout, self._ending))
        result: R = result_of(ended, self._signature)
        return result

    def __await__(self) -> Generator[Any, Any, R]:
        return self.result().__await__()

    def result_sync(self, timeout: float | None = None) -> R:
        """`result` for blocking code."""
        return wait_for(self.result(timeout))

    async def info(self) -> TaskInfo:
        """All that is known of the task.

        Raises:
            TaskNotFound: there is no such task.
        """
        return await self._client.bridge(lambda: self._client.info(self.id))

    async def status(self) -> State:
        """Where the task stands."""
        return (await self.info()).state

    async def cancel(self) -> str:
        """Cancel the task; see `Client.cancel` for the answer."""
        return await self._client.bridge(lambda: self._client.cancel(self.id))

    async def cancel_workflow(self) -> int:
        """Cancel all open tasks of the workflow that this one belongs to; how many they were."""
        return await self._client.bridge(lambda: self._client.cancel_workflow(self.id))

    async def workflow(self) -> Sequence[WorkflowNode]:
        """All tasks of the workflow that this one belongs to, in the order of their submission."""
        return await self._client.bridge(lambda: self._client.workflow(self.id))

    async def notes(self) -> AsyncIterator[Note]:
        """Progress and log lines of this task as they come, from now on, until its end. A slow reader misses some."""
        async for note in _bridged(self._client, self._client.notes(self.id)):
            yield note

    async def stream(self) -> AsyncIterator[Any]:
        """What a task function that yields has yielded and will yield, until its end.

        After a retry it goes on behind what was received before.

        Raises:
            ResultExpired: parts are no longer kept, because this came too late or reads too slowly.
            TaskFailed, TaskCrashed, TaskTimeout, TaskCancelled, TaskExpired: how the task ended.
        """
        async for part in _bridged(self._client, self._client.stream(self.id)):
            yield plain_json(part) if self._signature is None else self._signature.decode_part(part)
        with suppress(ResultExpired):
            await self.result()

    async def events(self) -> AsyncIterator[Change]:
        """The moves of this task from now on, until its end."""
        while True:
            try:
                async for change in self._client.events(task_id=self.id):
                    yield change
                return
            except EventsLost:
                if await self.status() in TERMINAL:
                    return


async def _bridged[T](client: TaskClient, items: AsyncGenerator[T]) -> AsyncIterator[T]:
    """Items that come in the client's own event loop."""
    try:
        while (item := await client.bridge(lambda: anext(items, None))) is not None:
            yield item
    finally:
        await client.bridge(items.aclose)


def result_of(ended: Ended, signature: Signature | None = None) -> Any:
    """The result of an ended task, or the error that says how it ended."""
    sealing = sealer()
    if sealing is not None:
        ended = sealing.open_ended(ended)
    match ended.state:
        case State.SUCCEEDED:
            return _decode(ended, signature)
        case State.FAILED:
            raise _failure(ended)
        case State.CANCELLED:
            raise TaskCancelled(f"task {ended.id} was cancelled", ended.id)
        case State.EXPIRED:
            raise TaskExpired(f"task {ended.id} expired before it was started", ended.id)
        case _:
            raise TaskNotFound(f"there is no task {ended.id}", ended.id)


def _decode(ended: Ended, signature: Signature | None) -> Any:
    if ended.result_expired or ended.result is None:
        raise ResultExpired(f"the result of task {ended.id} is no longer kept: raise its result_ttl", ended.id)
    refuse_if_sealed(ended.result, ended.id)
    if signature is None:
        return plain_json(ended.result)
    try:
        return signature.decode_result(ended.result)
    except ValidationError as error:
        raise ResultTypeError(
            f"the result of {signature} is not of the annotated type: {error}", ended.id, plain_json(ended.result)
        ) from None


def plain_json(text: str) -> Any:
    """JSON as plain data."""
    return from_json(text)


_FAILURES: dict[str, type[TaskFailed]] = {Reason.CRASHED: TaskCrashed, Reason.UPSTREAM: UpstreamFailed}


def _failure(ended: Ended) -> TaskFailed | TaskTimeout:
    error = ended.error or ErrorInfo("unknown", "no error was reported")
    message = f"task {ended.id} failed: {error.type}: {error.message}"
    if ended.reason == Reason.TIMEOUT:
        return TaskTimeout(f"task {ended.id} ran longer than its time limit: {error.message}", ended.id)
    kind = _FAILURES.get(ended.reason or "", TaskFailed)
    return kind(message, ended.id, error.type, error.message, error.traceback)
