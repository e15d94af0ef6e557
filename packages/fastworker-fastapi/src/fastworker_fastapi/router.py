"""`task_router()`: what an application's users may ask of their tasks.

Annotations are evaluated here, not put off: FastAPI can't find names that are local to a function otherwise.
"""

import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.params import Depends as DependsParam
from fastapi.responses import StreamingResponse

from fastworker.errors import ControlPlaneAway, ResultTimeout, TaskNotFound
from fastworker.lifecycle import TERMINAL
from fastworker.tasks import TaskInfo
from fastworker_fastapi.dependency import FastWorkerClient
from fastworker_fastapi.events import TaskEvents
from fastworker_fastapi.models import Cancellation, Problem, TaskOutcome, TaskStatus

Authorize = Callable[[Request, TaskInfo], bool | Awaitable[bool]]

LONGEST_POLL: Final = 60.0
"""Seconds; proxies tend to cut a silent request off after as many."""

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such task, or it is not for you."},
    503: {"model": Problem, "description": "The task queue is not available; `Retry-After` says when to try again."},
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "Events `state`, `progress`, `log`, `part`, `gap`, `end`.",
    }
}


def task_router(
    prefix: str = "/tasks",
    *,
    authorize: Authorize | None = None,
    dependencies: Sequence[DependsParam] = (),
    tags: list[str | Enum] | None = None,
) -> APIRouter:
    """A router with status, result, cancellation and events of tasks: `app.include_router(task_router())`.

    Args:
        prefix: before all its paths.
        authorize: gets the request and what is known of the task, e.g. its `tags`, and says whether this user may see
            and cancel it. Without it, who knows a task's id may.
        dependencies: of the application, before each request, e.g. `[Depends(current_user)]`.
        tags: of the paths in the OpenAPI document; default `["tasks"]`.
    """
    router = APIRouter(prefix=prefix, dependencies=list(dependencies), tags=tags or ["tasks"], responses=_PROBLEMS)

    async def find(task_id: str, request: Request, client: FastWorkerClient) -> TaskInfo:
        """The task, if this user may know of it."""
        info = await _info(client, task_id)
        if authorize is not None:
            allowed = authorize(request, info)
            if not (await allowed if inspect.isawaitable(allowed) else allowed):
                raise _not_found(task_id)
        return info

    Found = Annotated[TaskInfo, Depends(find)]

    @router.get("/{task_id}")
    async def status(info: Found) -> TaskStatus:
        """Where the task stands."""
        return TaskStatus.of(info)

    @router.get("/{task_id}/result", responses={202: {"model": TaskOutcome, "description": "It has not ended yet."}})
    async def result(
        info: Found,
        client: FastWorkerClient,
        response: Response,
        timeout: Annotated[float, Query(ge=0, le=LONGEST_POLL, description="Seconds to wait for the end.")] = 0.0,
    ) -> TaskOutcome:
        """How the task ended; waits for that if asked to."""
        if info.state not in TERMINAL and timeout > 0:
            with suppress(ResultTimeout):
                await client.wait(info.id, timeout)
            info = await _info(client, info.id)
        if info.state not in TERMINAL:
            response.status_code = 202
        elif info.result_expired:
            raise HTTPException(410, "The task succeeded, but its result is no longer kept.")
        return TaskOutcome.of(info)

    @router.post("/{task_id}/cancel")
    async def cancel(info: Found, client: FastWorkerClient) -> Cancellation:
        """Cancel the task, whether it waits or runs."""
        try:
            answer = await client.cancel(info.id)
        except ControlPlaneAway as error:
            raise _away(error) from None
        if answer == "not_found":
            raise _not_found(info.id)
        return Cancellation(id=info.id, answer=answer)

    @router.get("/{task_id}/events", response_class=StreamingResponse, responses=_STREAM)
    async def events(
        info: Found,
        client: FastWorkerClient,
        last_event_id: Annotated[int, Header(ge=-1, description="The number of the last part that was seen.")] = -1,
    ) -> StreamingResponse:
        """The task's state, progress, log lines and streamed parts as they come, as Server-Sent Events."""
        stream = TaskEvents(client, info, last_event_id + 1).stream()
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    return router


async def _info(client: FastWorkerClient, task_id: str) -> TaskInfo:
    try:
        return await client.info(task_id)
    except TaskNotFound:
        raise _not_found(task_id) from None
    except ControlPlaneAway as error:
        raise _away(error) from None


def _not_found(task_id: str) -> HTTPException:
    return HTTPException(404, f"There is no task {task_id[:64]}.")


def _away(error: ControlPlaneAway) -> HTTPException:
    headers = {"Retry-After": str(math.ceil(error.retry_after))}
    return HTTPException(503, "The task queue is not available. Try again later.", headers=headers)
