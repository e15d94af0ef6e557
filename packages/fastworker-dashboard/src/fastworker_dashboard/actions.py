"""What can be done from the pages: plain forms, which work without JavaScript. Each action goes to the audit."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from fastworker.activity import BulkAction
from fastworker.client import Client
from fastworker.errors import FastWorkerError
from fastworker.search import TaskFilter, parse, to_text
from fastworker.tasks import Priority
from fastworker_dashboard.access import User
from fastworker_dashboard.forms import form_fields
from fastworker_dashboard.pages import page_response, root_of
from fastworker_dashboard.request import Admin, NotAllowed, Operator, TheClient, not_found
from fastworker_dashboard.views import View

actions = APIRouter(include_in_schema=False)

VERBS: Final = {"retry": "Retry", "cancel": "Cancel", "delete": "Delete", "reprioritise": "Set the priority of"}
AT_ONCE: Final = frozenset({"retry", "reprioritise"})
"""What is done to selected tasks without asking: it can be undone."""


def _back(request: Request, path: str, said: str) -> Response:
    mark = "&" if "?" in path else "?"
    return RedirectResponse(f"{root_of(request)}{path}{mark}said={said}", 303)


def _check(user: User, what: BulkAction) -> None:
    if what == "delete" and not user.may("admin"):
        raise NotAllowed("admin")


# ---- tasks -------------------------------------------------------------------------------------------------------


@actions.post("/actions/tasks")
async def act_on_tasks(
    request: Request,
    user: Operator,
    client: TheClient,
    action: Annotated[BulkAction, Form()],
    ids: Annotated[list[str] | None, Form()] = None,
    q: Annotated[str, Form()] = "",
    priority: Annotated[Priority | None, Form()] = None,
    everything: Annotated[bool, Form(alias="all")] = False,
    confirmed: Annotated[bool, Form()] = False,
) -> Response:
    """Act on the selected tasks, or on all that match. What can't be undone asks first, with the count."""
    _check(user, action)
    if not everything and not ids:
        return page_response(request, _sorry("Select at least one task first, or act on all that match."), user)
    wanted = parse(q, time.time()) if everything else TaskFilter(ids=tuple(ids or ()))
    if action == "reprioritise" and priority is None:
        return page_response(request, _sorry("Choose a priority first."), user)
    new = priority if action == "reprioritise" else None
    if not confirmed and (everything or action not in AT_ONCE):
        return page_response(request, await _question(client, action, wanted, q, ids or [], everything, new), user)
    await client.start_bulk(action, wanted, priority=new, by=user.name)
    return _back(request, "/audit", "started")


async def _question(
    client: Client,
    action: BulkAction,
    wanted: TaskFilter,
    q: str,
    ids: list[str],
    everything: bool,
    priority: Priority | None,
) -> View:
    facets = await client.facets(wanted)
    return View(
        "confirm.html",
        f"{VERBS[action]} tasks",
        {
            "verb": VERBS[action],
            "action": action,
            "priority": priority.value if priority is not None else None,
            "count": facets.total,
            "exact": facets.exact,
            "fitting": _fitting(action, facets.states),
            "states": facets.states,
            "search": q if everything else "",
            "ids": ids,
            "everything": everything,
            "wanted": to_text(wanted) if everything else "",
            "live": False,
        },
    )


def _fitting(action: BulkAction, states: dict[str, int]) -> int:
    """How many of them the action can be done to."""
    ended = sum(states.get(state, 0) for state in ("succeeded", "failed", "cancelled", "expired"))
    return sum(states.values()) - ended if action in ("cancel", "reprioritise") else ended


def _sorry(text: str) -> View:
    return View("sorry.html", "Not done", {"text": text, "live": False}, 400)


@actions.post("/tasks/{task_id}/retry")
async def retry(request: Request, user: Operator, client: TheClient, task_id: str) -> Response:
    """Queue a task again."""
    queued = await client.requeue(task_id, by=user.name)
    return _back(request, f"/tasks/{task_id}", "retried" if queued else "not-ended")


@actions.post("/tasks/{task_id}/cancel")
async def cancel(request: Request, user: Operator, client: TheClient, task_id: str) -> Response:
    """Cancel a task."""
    await client.cancel(task_id, by=user.name)
    return _back(request, f"/tasks/{task_id}", "cancelled")


@actions.post("/tasks/{task_id}/priority")
async def reprioritise(
    request: Request, user: Operator, client: TheClient, task_id: str, priority: Annotated[Priority, Form()]
) -> Response:
    """Give a task another priority."""
    done = await client.reprioritise(task_id, priority, by=user.name)
    return _back(request, f"/tasks/{task_id}", "reprioritised" if done else "ended")


@actions.post("/tasks/{task_id}/again")
async def again(
    request: Request, user: Admin, client: TheClient, task_id: str, args: Annotated[str, Form()]
) -> Response:
    """Run a task again with other arguments."""
    try:
        value = json.loads(args)
    except ValueError as error:
        return page_response(request, _sorry(f"The arguments are not JSON: {error}. Nothing was done."), user)
    positions, keywords = _call(value)
    queued = await client.requeue(task_id, positions, keywords, by=user.name)
    return _back(request, f"/tasks/{task_id}", "retried" if queued else "not-ended")


def _call(value: Any) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments, from JSON in any of the forms that a task's arguments have."""
    if isinstance(value, dict):
        keywords = {str(key): item for key, item in value.items() if key != "*"}
        return list(value.get("*", [])), keywords
    return (value, {}) if isinstance(value, list) else ([value], {})


# ---- types, queues, workers, jobs --------------------------------------------------------------------------------


@actions.post("/submit")
async def submit(request: Request, user: Admin, client: TheClient, name: Annotated[str, Form()]) -> Response:
    """Submit a task from the form of its type."""
    form = await request.form()
    definition = next((one for one in await client.definitions() if one.name == name), None)
    if definition is None:
        raise not_found(f"no worker has told of a task named {name}")
    values: dict[str, Any] = {}
    for field in form_fields(definition):
        text = str(form.get(f"arg-{field.name}", ""))
        if not text and not field.required:
            continue
        try:
            values[field.name] = text if field.kind == "string" else json.loads(text)
        except ValueError:
            return page_response(request, _sorry(f"{field.name} is not {field.kind}: {text!r}. Nothing done."), user)
    try:
        new = await client.submit(name, (), values)
    except FastWorkerError as error:
        return page_response(request, _sorry(str(error)), user)
    await client.note(f"submitted {name} {new}", by=user.name)
    return _back(request, f"/tasks/{new}", "submitted")


@actions.post("/pause")
async def pause(
    request: Request,
    user: Operator,
    client: TheClient,
    queue: Annotated[str | None, Form()] = None,
    name: Annotated[str | None, Form()] = None,
) -> Response:
    """Pause a queue or a task name."""
    await client.pause(queue=queue, name=name, by=user.name)
    return _back(request, "/queues", "paused")


@actions.post("/resume")
async def resume(
    request: Request,
    user: Operator,
    client: TheClient,
    queue: Annotated[str | None, Form()] = None,
    name: Annotated[str | None, Form()] = None,
) -> Response:
    """Undo it."""
    await client.resume(queue=queue, name=name, by=user.name)
    return _back(request, "/queues", "resumed")


@actions.post("/drain")
async def drain(
    request: Request,
    user: Operator,
    client: TheClient,
    worker: Annotated[str, Form()],
    undo: Annotated[bool, Form()] = False,
) -> Response:
    """Give a worker nothing new, or something again."""
    await (client.resume if undo else client.pause)(worker=worker, by=user.name)
    return _back(request, "/workers", "undrained" if undo else "drained")


@actions.post("/schedules")
async def on_schedule(
    request: Request,
    user: Operator,
    client: TheClient,
    name: Annotated[str, Form()],
    action: Annotated[Literal["run", "pause", "resume"], Form()],
) -> Response:
    """Run what is scheduled now, pause or resume its schedule."""
    match action:
        case "run":
            await client.run_schedule(name)
        case "pause":
            await client.pause_schedule(name)
        case "resume":
            await client.resume_schedule(name)
    await client.note(f"{action} schedule {name}", by=user.name)
    return _back(request, "/schedules", {"run": "submitted", "pause": "paused", "resume": "resumed"}[action])


@actions.post("/jobs/{job_id}/stop")
async def stop(request: Request, user: Operator, client: TheClient, job_id: str) -> Response:
    """Stop an action on all that match."""
    await client.stop_bulk(job_id, by=user.name)
    return _back(request, "/audit", "stopped")
