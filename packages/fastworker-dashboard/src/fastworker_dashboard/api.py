"""The JSON API under `/api/v1`, for any language, and the paths of fastworker 0.3.0."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import to_json

from fastworker.activity import Activity, AuditRow, BulkAction, BulkView
from fastworker.found import Facets, FailureGroup, TaskPage
from fastworker.options import SubmitOptions
from fastworker.release import RELEASE
from fastworker.tasks import Definition, Priority, TaskInfo
from fastworker.trace_context import carrying
from fastworker.views import Explanation, LaneView, ScheduleView, Stats, WorkerView, WorkflowNode
from fastworker_dashboard.metrics import exposition
from fastworker_dashboard.request import Admin, NotAllowed, Operator, TheClient, Viewer, site_of

api = APIRouter(prefix="/api/v1", tags=["v1"])
old = APIRouter(prefix="/api", tags=["fastworker 0.3.0"])
probes = APIRouter(tags=["probes"])

Q = Annotated[str, Query(description="A search, as in the search box.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[int | None, Query(ge=0, description="`next` of the page before.")]


class NewTask(BaseModel):
    """A task to be submitted."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    priority: Literal["critical", "high", "normal", "low"] | None = None
    queue: str | None = None
    retries: int | None = None
    timeout: float | None = None
    delay: float | None = None
    eta: float | None = None
    expires: float | None = None
    tags: list[str] | None = None
    strict: bool = False


class Submitted(BaseModel):
    """The id of a task that was stored."""

    id: str


class Done(BaseModel):
    """What became of an action."""

    outcome: str


class NewBulk(BaseModel):
    """An action on all tasks that match."""

    model_config = ConfigDict(extra="forbid")

    action: BulkAction
    q: str
    priority: Priority | None = Field(default=None, description="The new one, for `reprioritise`.")

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if (self.action == "reprioritise") is (self.priority is None):
            raise ValueError("priority: say it with `reprioritise`, and only there")
        return self


# ---- tasks -------------------------------------------------------------------------------------------------------


@api.post("/tasks", status_code=201)
async def submit(request: Request, task: NewTask, user: Admin, client: TheClient) -> Submitted:
    """Submit a task; the answer comes once it is stored. A `traceparent` of the request goes on with the task."""
    options = task.model_dump(exclude={"name", "args", "kwargs", "strict"}, exclude_none=True)
    said: SubmitOptions = {**options}  # type: ignore[typeddict-item]
    with carrying(request.headers):
        new = str(await client.submit(task.name, task.args, task.kwargs, strict=task.strict, **said))
    site_of(request).notes.submitted(client, user.name, task.name, new)
    return Submitted(id=new)


@api.get("/tasks")
async def search(_user: Viewer, client: TheClient, q: Q = "", limit: Limit = 50, before: Before = None) -> TaskPage:
    """Tasks that match, newest first."""
    return await client.search(q, limit=limit, before=before, redact=True)


@api.get("/facets")
async def facets(_user: Viewer, client: TheClient, q: Q = "") -> Facets:
    """How many match, by state, name, queue and priority."""
    return await client.facets(q)


@api.get("/failures")
async def failures(_user: Viewer, client: TheClient, limit: Limit = 100) -> Sequence[FailureGroup]:
    """Failed tasks in groups."""
    return await client.failures(limit=limit)


@api.get("/tasks/{task_id}")
async def info(task_id: str, _user: Viewer, client: TheClient) -> TaskInfo:
    """All that is known of a task."""
    return await client.info(task_id, redact=True)


@api.get("/tasks/{task_id}/why")
async def why(task_id: str, _user: Viewer, client: TheClient) -> Explanation:
    """Why it is not running."""
    return await client.why(task_id)


@api.post("/tasks/{task_id}/retry")
async def retry(task_id: str, user: Operator, client: TheClient) -> Done:
    """Run it again."""
    queued = await client.requeue(task_id, by=user.name)
    return Done(outcome="queued" if queued else "not_ended")


@api.post("/tasks/{task_id}/cancel")
async def cancel(task_id: str, user: Operator, client: TheClient) -> Done:
    """Cancel it."""
    return Done(outcome=await client.cancel(task_id, by=user.name))


@api.post("/bulk", status_code=202)
async def start_bulk(new: NewBulk, user: Operator, client: TheClient) -> Submitted:
    """Retry, cancel, delete or reprioritise all that match, in the background."""
    if new.action == "delete" and not user.may("admin"):
        raise NotAllowed("admin")
    return Submitted(id=await client.start_bulk(new.action, new.q, priority=new.priority, by=user.name))


@api.get("/bulk")
async def bulk_jobs(_user: Viewer, client: TheClient) -> Sequence[BulkView]:
    """Such actions, with their progress."""
    return await client.bulk_jobs()


@api.post("/bulk/{job_id}/stop")
async def stop_bulk(job_id: str, user: Operator, client: TheClient) -> Done:
    """Stop one."""
    return Done(outcome="stopped" if await client.stop_bulk(job_id, by=user.name) else "not_running")


# ---- the rest ----------------------------------------------------------------------------------------------------


@api.get("/stats")
async def stats(_user: Viewer, client: TheClient) -> Stats:
    """Counts of the whole system."""
    return await client.stats()


@api.get("/activity")
async def activity(_user: Viewer, client: TheClient) -> Activity:
    """Series of counts, task types, what is queued."""
    return await client.activity()


@api.get("/workers")
async def workers(_user: Viewer, client: TheClient) -> Sequence[WorkerView]:
    """The connected workers."""
    return await client.workers()


@api.post("/workers/{name}/drain")
async def drain(name: str, user: Operator, client: TheClient, undo: bool = False) -> Done:
    """Give a worker nothing new, or something again."""
    await (client.resume if undo else client.pause)(worker=name, by=user.name)
    return Done(outcome="done")


@api.get("/schedules")
async def schedules(_user: Viewer, client: TheClient) -> Sequence[ScheduleView]:
    """What runs by itself, and when next."""
    return await client.schedules()


@api.get("/tasks/{task_id}/workflow")
async def workflow(task_id: str, _user: Viewer, client: TheClient) -> Sequence[WorkflowNode]:
    """All tasks of the workflow that it belongs to."""
    return await client.workflow(task_id)


@api.post("/tasks/{task_id}/priority/{priority}")
async def reprioritise(task_id: str, priority: Priority, user: Operator, client: TheClient) -> Done:
    """Give it another priority."""
    done = await client.reprioritise(task_id, priority, by=user.name)
    return Done(outcome="done" if done else "already_done")


@api.get("/queues")
async def queues(_user: Viewer, client: TheClient) -> Sequence[LaneView]:
    """The lanes."""
    return await client.queues()


@api.post("/queues/{queue}/pause")
async def pause(queue: str, user: Operator, client: TheClient) -> Done:
    """Pause a queue."""
    await client.pause(queue=queue, by=user.name)
    return Done(outcome="done")


@api.post("/queues/{queue}/resume")
async def resume(queue: str, user: Operator, client: TheClient) -> Done:
    """Undo it."""
    await client.resume(queue=queue, by=user.name)
    return Done(outcome="done")


@api.get("/types")
async def types(_user: Viewer, client: TheClient) -> Sequence[Definition]:
    """The task functions that workers know, with the JSON schema of their arguments."""
    return await client.definitions()


@api.get("/audit")
async def audit(_user: Viewer, client: TheClient, limit: Limit = 50, before: Before = None) -> Sequence[AuditRow]:
    """Who did what."""
    return await client.audit(limit=limit, before=before)


@api.get("/events", response_class=StreamingResponse)
async def events(_user: Viewer, client: TheClient, task: str | None = None, name: str | None = None) -> Response:
    """Moves of tasks from now on, as server-sent events."""

    async def lines() -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        async for change in client.events(task, name):
            yield b"event: change\ndata: " + to_json(change) + b"\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


# ---- fastworker 0.3.0 --------------------------------------------------------------------------------------------


@old.get("/status")
async def old_status(_user: Viewer, client: TheClient) -> dict[str, Any]:
    """What `/api/status` told."""
    said = await client.stats()
    return {
        "status": "running",
        "version": RELEASE,
        "uptime_started": said.started,
        "workers": said.workers,
        "states": said.states,
        "queue_size": said.states.get("queued", 0),
    }


@old.get("/workers")
async def old_workers(_user: Viewer, client: TheClient) -> dict[str, Any]:
    """What `/api/workers` told."""
    return {"workers": {worker.name: worker for worker in await client.workers()}}


@old.get("/queues")
async def old_queues(_user: Viewer, client: TheClient) -> dict[str, Any]:
    """What `/api/queues` told: how many are queued by priority."""
    said = await client.activity()
    return {"queues": said.queued, "total": sum(said.queued.values())}


@old.get("/tasks")
async def old_tasks(_user: Viewer, client: TheClient, limit: Limit = 50) -> dict[str, Any]:
    """What `/api/tasks` told: the latest tasks."""
    page = await client.search("", limit=limit, redact=True)
    return {"tasks": page.tasks, "total": (await client.facets()).total}


# ---- probes ------------------------------------------------------------------------------------------------------


@probes.get("/healthz")
async def healthz() -> dict[str, str]:
    """The dashboard itself answers."""
    return {"status": "ok"}


@probes.get("/readyz")
async def readyz(client: TheClient) -> dict[str, str]:
    """The control plane answers too."""
    await client.stats()
    return {"status": "ok"}


@probes.get("/metrics")
async def metrics(_user: Viewer, client: TheClient) -> Response:
    """For Prometheus."""
    said = await asyncio.gather(client.stats(), client.activity(), client.workers())
    return Response(exposition(*said), media_type="text/plain; version=0.0.4; charset=utf-8")
