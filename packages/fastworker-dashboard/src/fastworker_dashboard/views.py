"""What each page shows: from a client and what stands in the address, to the values of a template."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fastworker.activity import SPANS, Activity, Series
from fastworker.client import Client
from fastworker.errors import InvalidSearch, TaskNotFound
from fastworker.found import Facets, FailureGroup, TaskPage
from fastworker.lifecycle import OPEN, TERMINAL, State
from fastworker.release import RELEASE
from fastworker.search import STATES, TaskFilter, parse, to_text
from fastworker.tasks import PRIORITIES, Attempt, Definition, TaskInfo
from fastworker.views import LaneView, LimitsView, WorkflowNode
from fastworker_dashboard import charts, graph
from fastworker_dashboard.forms import form_fields

PAGE_SIZE: Final = 50
TOP: Final = 5
MOST_LANES: Final = 500
MOST_SCHEDULES: Final = 100
MOST_NODES: Final = 200
LATELY: Final = 20
MOST_NAMES: Final = 500

Params = Mapping[str, str]


@dataclass(slots=True)
class View:
    """A page to be rendered."""

    template: str
    title: str
    values: dict[str, Any] = field(default_factory=dict)
    status: int = 200


ViewFunction = Callable[[Client, Params], Awaitable[View]]


class PageNotFound(Exception):
    """There is no such page."""


# ---- overview ----------------------------------------------------------------------------------------------------


async def overview(client: Client, params: Params) -> View:
    """Health, what is queued, charts, who fails and who is slow."""
    activity, stats, workers, failures = await asyncio.gather(
        client.activity(), client.stats(), client.workers(), client.search("state:failed", limit=TOP)
    )
    span = params.get("span", "2m")
    series = activity.series[span if span in SPANS else "2m"]
    busy = sum(worker.assigned for worker in workers)
    slots = sum(worker.slots for worker in workers if not worker.paused)
    return View(
        "overview.html",
        "Overview",
        {
            "activity": activity,
            "stats": stats,
            "span": span,
            "spans": SPANS,
            "now_done": _recent(activity.series["2m"].succeeded),
            "now_failed": _recent(activity.series["2m"].failed),
            "charts": [_figure(series, "throughput", "Throughput"), _figure(series, "depth", "Queued and running")],
            "rows": charts.table(series),
            "busy": min(busy, slots),
            "slots": slots,
            "workers": workers,
            "failing": _top(activity, "failed"),
            "slowest": sorted(
                (known for known in activity.types if known.run_p95 is not None),
                key=lambda known: -(known.run_p95 or 0),
            )[:TOP],
            "failures": failures.tasks,
            "troubles": _troubles(activity, len(workers), slots),
        },
    )


def _recent(values: Sequence[int], seconds: int = 10) -> float:
    """Per second over the last full seconds."""
    part = values[-1 - seconds : -1]
    return sum(part) / max(1, len(part))


def _figure(series: Series, kind: str, title: str) -> dict[str, Any]:
    return {"title": title, "svg": charts.series_chart(series, kind), "kind": kind}


def _top(activity: Activity, what: str) -> list[tuple[str, int, int]]:
    """Names with the most tasks in a state, with that number and the number that succeeded."""
    counted = [(t.name, t.states.get(what, 0), t.states.get("succeeded", 0)) for t in activity.types]
    return sorted((row for row in counted if row[1]), key=lambda row: -row[1])[:TOP]


def _troubles(activity: Activity, workers: int, slots: int) -> list[str]:
    """What is wrong, each as a sentence that says what to do."""
    found = []
    queued = sum(activity.queued.values())
    if not workers:
        found.append("No worker is connected, so nothing runs. Start one: fastworker worker start MODULE")
    elif not slots:
        found.append("All workers are drained, so nothing new starts.")
    for queue in activity.paused_queues:
        found.append(f"The queue {queue} is paused.")
    for name in activity.paused_names:
        found.append(f"Tasks named {name} are paused.")
    if queued and activity.oldest is not None and activity.now - activity.oldest > 300:
        found.append("A task has been queued for more than five minutes. Queues shows which.")
    return found


# ---- tasks -------------------------------------------------------------------------------------------------------


async def tasks(client: Client, params: Params) -> View:
    """One page of a search, with facets."""
    text = params.get("q", "")
    before = int(params["before"]) if params.get("before", "").isdigit() else None
    try:
        wanted = parse(text, time.time())
    except InvalidSearch as error:
        return View("tasks.html", "Tasks", {"q": text, "complaint": str(error), "live": False}, status=400)
    if params.get("group") == "name":
        return await _tasks_by_name(client, text, wanted)
    page, everything = await asyncio.gather(
        client.search(wanted, limit=PAGE_SIZE, before=before, redact=True), client.facets()
    )
    whole = before is None and (page.next is None or not page.complete)
    facets = _counted(page) if whole else await client.facets(wanted)
    by_id = bool(wanted.ids) and not wanted.but(ids=())
    only = page.tasks[0].id if by_id and len(page.tasks) == 1 else None
    return View(
        "tasks.html",
        "Tasks",
        {
            "q": text,
            "wanted": wanted,
            "page": page,
            "facets": facets,
            "states": _state_links(text, wanted, facets.states if wanted.but(states=()) else everything.states),
            "names": _links(text, "name", facets.names, wanted.names),
            "queues": _links(text, "queue", facets.queues, wanted.queues),
            "priorities": _links(text, "priority", facets.priorities, wanted.priorities),
            "any": everything.total,
            "before": before,
            "only": only,
            "priority_names": [priority.value for priority in PRIORITIES],
            "live": before is None,
        },
    )


async def _tasks_by_name(client: Client, text: str, wanted: TaskFilter) -> View:
    """All that match, counted by name and state."""
    facets = await client.facets(wanted)
    rest = _without(text, "name")
    rows = [
        (name, f"{rest} {term('name', name)}".strip(), sum(states.values()), states)
        for name, states in facets.by_name.items()
    ]
    found = sorted(rows, key=lambda row: (-row[2], row[0]))
    return View(
        "tasks_by_name.html",
        "Tasks by name",
        {
            "q": text,
            "facets": facets,
            "columns": [state.value for state in STATES if facets.states.get(state.value)],
            "rest": _without(rest, "state"),
            "rows": found[:MOST_NAMES],
            "more": max(0, len(found) - MOST_NAMES),
        },
    )


def _counted(page: TaskPage) -> Facets:
    """The counts of a page that has all that was found: whoever looked for them anew would take as long again."""
    tasks = page.tasks
    return Facets(
        len(tasks), page.complete, Counter(task.state.value for task in tasks), Counter(task.name for task in tasks),
        Counter(task.queue for task in tasks), Counter(task.priority.value for task in tasks),
    )  # fmt: skip


def _without(text: str, key: str) -> str:
    """The search without the terms of a key."""
    return re.sub(rf'\s*\b{key}:(?:"(?:[^"\\]|\\.)*"|\S*)', "", text).strip()


def _state_links(text: str, wanted: TaskFilter, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    rest = _without(text, "state")
    shown = [state for state in STATES if counts.get(state) or state in wanted.states]
    return [_link(rest, "state", state.value, counts.get(state, 0), state in wanted.states) for state in shown]


def _links(text: str, key: str, counts: Mapping[str, int], chosen: Sequence[str]) -> list[dict[str, Any]]:
    rest = _without(text, key)
    most = sorted(counts.items(), key=lambda item: -item[1])[:12]
    return [_link(rest, key, value, count, value in chosen) for value, count in most]


def _link(rest: str, key: str, value: str, count: int, chosen: bool) -> dict[str, Any]:
    """A facet: choosing it narrows the search, choosing it again widens it."""
    term = to_text(_FILTERS[key](value))
    return {"value": value, "count": count, "chosen": chosen, "q": rest if chosen else f"{rest} {term}".strip()}


_FILTERS: Final[dict[str, Callable[[Any], TaskFilter]]] = {
    "state": lambda value: TaskFilter(states=(State(value),)),
    "name": lambda value: TaskFilter(names=(value,)),
    "queue": lambda value: TaskFilter(queues=(value,)),
    "priority": lambda value: TaskFilter(priorities=(value,)),
}


def term(key: str, value: str) -> str:
    """A term of a search, for a link."""
    return to_text(_FILTERS[key](value))


async def task(client: Client, params: Params) -> View:
    """Everything about one task."""
    try:
        info = await client.info(params["id"], redact=True)
    except TaskNotFound:
        return View("missing.html", "No such task", {"what": f"task {params['id']}"}, status=404)
    why = await client.why(info.id) if info.state in OPEN else None
    nodes = await client.workflow(info.id)
    return View(
        "task.html",
        f"{info.name} {info.id[:8]}",
        {
            "task": info,
            "why": why,
            "times": _times(info),
            "ran": _ran(info),
            "waited": info.started_at - info.submitted_at if info.started_at else None,
            "ended": info.state in TERMINAL,
            "attempts": _attempts(info),
            "drawing": graph.draw(nodes),
            "nodes": nodes[:MOST_NODES] if len(nodes) > 1 else [],
            "more_nodes": max(0, len(nodes) - MOST_NODES),
            "children": _children(nodes),
            "priorities": [priority.value for priority in PRIORITIES],
            "cancellable": info.state in OPEN,
        },
    )


def _children(nodes: Sequence[WorkflowNode]) -> dict[str, int]:
    """By task, how many tasks need it or were submitted by it."""
    counts: dict[str, int] = {}
    for node in nodes:
        for above in graph.uppers(node):
            counts[above] = counts.get(above, 0) + 1
    return counts


def _attempts(info: TaskInfo) -> list[Attempt]:
    """Those that are remembered; the last one, too, while it runs and if it succeeded."""
    attempts = list(info.history)
    if info.started_at is not None and info.worker and info.attempt > (attempts[-1].number if attempts else 0):
        ended = info.finished_at if info.finished_at is not None else time.time()
        attempts.append(Attempt(info.attempt, info.worker, info.started_at, ended, info.state.value, info.error))
    return attempts


def _ran(info: TaskInfo) -> float | None:
    if info.started_at is None:
        return None
    return (info.finished_at or time.time()) - info.started_at if info.state not in (State.QUEUED,) else None


def _times(info: TaskInfo) -> list[tuple[str, float]]:
    found = [
        ("submitted", info.submitted_at),
        ("due", info.due_at),
        ("started", info.started_at),
        (info.state.value if info.state in TERMINAL else "ended", info.finished_at),
    ]
    return [(what, at) for what, at in found if at is not None]


# ---- the others --------------------------------------------------------------------------------------------------


async def failed(client: Client, _params: Params) -> View:
    """Failed tasks, grouped."""
    groups, facets = await asyncio.gather(client.failures(limit=100), client.facets("state:failed"))
    rows = [(group, to_text(_group_filter(group))) for group in groups]
    return View("failed.html", "Failed", {"groups": rows, "total": facets.total})


def _group_filter(group: FailureGroup) -> TaskFilter:
    return TaskFilter(states=(State.FAILED,), names=(group.name,), type=group.type or None, place=group.place or None)


async def queues(client: Client, _params: Params) -> View:
    """Queues with their lanes."""
    lanes, activity, limits = await asyncio.gather(client.queues(), client.activity(), client.limits())
    waits = {known.name: known for known in activity.types}
    by_queue: dict[str, list[LaneView]] = {queue: [] for queue in (*activity.paused_queues, *activity.flows)}
    for lane in sorted(lanes, key=lambda lane: -sum(lane.queued.values()))[:MOST_LANES]:
        by_queue.setdefault(lane.queue, []).append(lane)
    return View(
        "queues.html",
        "Queues",
        {
            "queues": sorted(by_queue.items()),
            "waits": waits,
            "limits": {limit.name: _limit(limit) for limit in limits},
            "flows": activity.flows,
            "paused_queues": activity.paused_queues,
            "paused_names": activity.paused_names,
            "pauses": {(pause.what, pause.target): pause for pause in activity.pauses if pause.by},
            "priorities": [priority.value for priority in PRIORITIES],
        },
    )


def _limit(limit: LimitsView) -> str:
    """In words."""
    words = [str(rate) for rate in limit.rates]
    if limit.max_concurrency is not None:
        words.append(f"{limit.max_concurrency} at once")
    return ", ".join(words) or "none"


async def workers(client: Client, _params: Params) -> View:
    """The connected workers."""
    found = await client.workers()
    return View("workers.html", "Workers", {"workers": sorted(found, key=lambda worker: (worker.own, worker.name))})


async def worker(client: Client, params: Params) -> View:
    """One worker: where it is, what it holds and runs, what it did lately."""
    name = params["name"]
    of_it = TaskFilter(worker=name)
    found, running, ended = await asyncio.gather(
        client.workers(),
        client.search(of_it.but(states=(State.RUNNING,)), limit=PAGE_SIZE, redact=True),
        client.search(of_it.but(states=tuple(TERMINAL)), limit=LATELY, redact=True),
    )
    view = next((one for one in found if one.name == name), None)
    if view is None and not running.tasks and not ended.tasks:
        return View("missing.html", "No such worker", {"what": f"worker {name}"}, status=404)
    return View(
        "worker.html",
        name,
        {"name": name, "worker": view, "running": running.tasks, "ended": ended.tasks, "all": to_text(of_it)},
    )


async def types(client: Client, _params: Params) -> View:
    """All task names: those that workers know, and those that only tasks have."""
    activity, definitions, workers = await asyncio.gather(client.activity(), client.definitions(), client.workers())
    known = {definition.name: definition for definition in definitions}
    active = {one.name: one for one in activity.types}
    rows = [(name, known.get(name), active.get(name)) for name in sorted({*known, *active})]
    return View("types.html", "Task types", {"rows": rows, "anyone": bool(workers)})


async def task_type(client: Client, params: Params) -> View:
    """One task name, with a form to submit it."""
    name = params["name"]
    activity, definitions, limits = await asyncio.gather(client.activity(), client.definitions(), client.limits())
    definition = next((one for one in definitions if one.name == name), None)
    active = next((one for one in activity.types if one.name == name), None)
    if definition is None and active is None:
        return View("missing.html", "No such task type", {"what": f"task type {name}"}, status=404)
    return View(
        "type.html",
        name,
        {
            "name": name,
            "definition": definition,
            "active": active,
            "options": _options(definition),
            "limit": next((limit for limit in limits if limit.name == name), None),
            "limit_words": {limit.name: _limit(limit) for limit in limits}.get(name),
            "fields": form_fields(definition) if definition else [],
            "histogram": charts.histogram(active.durations) if active else "",
            "schema": json.dumps(definition.parameters, indent=2) if definition else "",
            "live": False,
        },
    )


def _options(definition: Definition | None) -> list[tuple[str, Any]]:
    if definition is None:
        return []
    options = definition.options
    return [
        (name.replace("_", " "), value)
        for name in options.__dataclass_fields__
        if (value := getattr(options, name)) not in (None, ())
    ]


async def schedules(client: Client, params: Params) -> View:
    """What runs by itself, in plain words."""
    found = await client.schedules(after=params.get("after") or None)
    return View(
        "schedules.html",
        "Schedules",
        {"schedules": found, "next": found[-1].schedule.name if len(found) == MOST_SCHEDULES else None},
    )


async def audit(client: Client, params: Params) -> View:
    """Who did what, and the actions on all that match."""
    before = int(params["before"]) if params.get("before", "").isdigit() else None
    rows, jobs = await asyncio.gather(client.audit(limit=PAGE_SIZE, before=before), client.bulk_jobs())
    return View(
        "audit.html",
        "Audit",
        {
            "rows": rows,
            "jobs": [(job, to_text(job.filter)) for job in jobs],
            "next": rows[-1].number if len(rows) == PAGE_SIZE else None,
            "live": before is None,
        },
    )


async def about(client: Client, _params: Params) -> View:
    """What runs, where, and how to ask it by other ways."""
    return View("about.html", "About", {"stats": await client.stats(), "release": RELEASE})


PAGES: Final[tuple[tuple[re.Pattern[str], ViewFunction], ...]] = tuple(
    (re.compile(pattern), view)
    for pattern, view in (
        (r"/", overview),
        (r"/tasks", tasks),
        (r"/tasks/(?P<id>[^/]+)", task),
        (r"/failed", failed),
        (r"/queues", queues),
        (r"/workers", workers),
        (r"/workers/(?P<name>.+)", worker),
        (r"/types", types),
        (r"/types/(?P<name>.+)", task_type),
        (r"/schedules", schedules),
        (r"/audit", audit),
        (r"/about", about),
    )
)


def view_of(path: str) -> tuple[ViewFunction, dict[str, str]]:
    """The page at a path, with what the path says.

    Raises:
        PageNotFound: there is none.
    """
    for pattern, view in PAGES:
        found = pattern.fullmatch(path)
        if found is not None:
            return view, found.groupdict()
    raise PageNotFound(path)
