"""Why a task is not running: one sentence for a person, one word for a program."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import islice
from typing import Final

from fastworker.lifecycle import State
from fastworker.tasks import Task
from fastworker.views import Explanation
from fastworker_server.engine import Engine
from fastworker_server.limits import Limit

COUNT_AHEAD_UP_TO = 100_000
"""In longer lanes the exact place is not counted."""
MOST_COMPARED: Final = 500
"""Names among which one that is spelled alike is looked for."""


def explain(engine: Engine, task: Task, now: float) -> Explanation:
    """The reason that holds now."""
    match task.state:
        case State.QUEUED:
            return _queued(engine, task, now)
        case State.SCHEDULED:
            return _say(task, "scheduled", f"it is to start in {_wait(task, now)}", until=task.due_at)
        case State.RETRYING:
            attempt = f"attempt {task.attempt} failed"
            error = f": {task.error.type}: {task.error.message}" if task.error else ""
            return _say(task, "retrying", f"{attempt}{error}; the next is in {_wait(task, now)}", until=task.due_at)
        case State.RUNNING if task.recovering:
            reason = f"it was running at {task.worker} when the control plane was restarted; that worker is awaited"
            return _say(task, "recovering", reason, until=engine.recovering_until)
        case State.RUNNING:
            return _running(engine, task, now)
        case State.WAITING:
            return _waiting(engine, task)
        case _:
            because = f" ({task.reason})" if task.reason else ""
            return _say(task, "ended", f"it has ended: {task.state}{because}")


def _queued(engine: Engine, task: Task, now: float) -> Explanation:
    lane = engine.lanes.lane(task, now)
    if task.queue in engine.lanes.paused_queues:
        advice = f"fastworker resume --queue {task.queue}"
        return _say(task, "paused", f"the queue {task.queue!r} is paused", advice=advice)
    if task.name in engine.lanes.paused_names:
        return _say(
            task, "paused", f"tasks named {task.name!r} are paused", advice=f"fastworker resume --name {task.name}"
        )
    if engine.recovering_until is not None:
        reason = f"the control plane was restarted and waits for {len(engine.expected_workers)} workers to come back"
        return _say(task, "recovering", reason, until=engine.recovering_until)
    if not engine.workers:
        return _say(task, "no worker", "no worker is connected", advice="fastworker worker start")
    paused = [worker.name for worker in engine.workers.values() if worker.paused and task.name in worker.names]
    if not lane.route.workers and paused:
        advice = f"fastworker resume --worker {paused[0]}"
        return _say(task, "workers paused", f"the workers that know it are paused: {', '.join(paused)}", advice=advice)
    if not lane.route.workers:
        reason = f"no connected worker knows a task named {task.name!r}"
        return _say(task, "no capable worker", reason, advice=_advice_on_name(engine, task.name))
    if lane.limit is not None and lane.limit.closed is not None:
        return _limited(task, lane.limit, now)
    if not any(worker.usable for worker in lane.route.workers):
        return _say(task, "workers silent", "the workers that know it are disconnected, silent or draining")
    slots = sum(worker.slots for worker in lane.route.workers)
    ahead = _ahead(engine, task, now)
    place = f"; {ahead} tasks go before it" if ahead else ""
    return _say(task, "workers busy", f"all {slots} slots of the workers that know it are taken{place}", ahead=ahead)


def _advice_on_name(engine: Engine, name: str) -> str:
    known = set[str]().union(*(worker.names for worker in engine.workers.values()))
    alike = get_close_matches(name, islice(known, MOST_COMPARED), 1)
    spelling = f"check the spelling ({alike[0]!r} is known)" if alike else "check the spelling of the name"
    return f"{spelling}, or start a worker with the module that defines it"


def _limited(task: Task, limit: Limit, now: float) -> Explanation:
    whose = f"{task.name!r}" + (f" with the key {task.ties.key!r}" if task.ties.key else "")
    match limit.closed:
        case "concurrency limit":
            most = limit.limits.max_concurrency
            return _say(task, "concurrency limit", f"{limit.running} tasks {whose} run, and {most} is the limit")
        case "rate limit":
            rates = ", ".join(map(str, limit.limits.rates))
            wait = f"the next may start in {max(0.0, (limit.until or now) - now):.1f} s"
            return _say(task, "rate limit", f"tasks {whose} are limited to {rates}; {wait}", until=limit.until)
        case _:
            wait = f"{max(0.0, limit.held_until - now):.1f} s"
            reason = f"a task {whose} has asked that none like it starts for another {wait}"
            return _say(task, "held by a task", reason, until=limit.held_until)


def _waiting(engine: Engine, task: Task) -> Explanation:
    open_needs = [engine.tasks[need] for need in task.ties.needs if need in engine.tasks]
    named = ", ".join(f"{need.name} ({need.id}, {need.state})" for need in open_needs[:3])
    more = f" and {len(open_needs) - 3} more" if len(open_needs) > 3 else ""
    advice = f"fastworker why {open_needs[0].id}" if open_needs else None
    return _say(task, "waiting", f"it waits for {named}{more}", advice=advice)


def _running(engine: Engine, task: Task, now: float) -> Explanation:
    worker = engine.workers.get(task.worker or "")
    seconds = now - (task.started_at or now)
    reason = f"it is running: attempt {task.attempt} at {task.worker}, for {seconds:.1f} s"
    if worker is not None and not worker.connected:
        return _say(task, "worker away", f"{reason}; the connection to that worker is broken and is awaited")
    if worker is not None and worker.silent:
        return _say(task, "worker silent", f"{reason}; that worker has been silent for {now - worker.last_heard:.0f} s")
    return _say(task, "running", reason)


def _ahead(engine: Engine, task: Task, now: float) -> int | None:
    lane = engine.lanes.lane(task, now)
    if len(lane) > COUNT_AHEAD_UP_TO:
        return None
    better = sum(engine.lanes.queued(rank) - lane.counts[rank] for rank in range(task.rank))
    return better + lane.before(task)


def _wait(task: Task, now: float) -> str:
    return f"{max(0.0, (task.due_at or now) - now):.1f} s"


def _say(
    task: Task,
    code: str,
    reason: str,
    *,
    until: float | None = None,
    ahead: int | None = None,
    advice: str | None = None,
) -> Explanation:
    return Explanation(task.id, task.state, code, reason, until, ahead, advice)
