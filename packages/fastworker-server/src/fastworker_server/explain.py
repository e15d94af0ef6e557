"""Why a task is not running: one sentence for a person, one word for a program."""

from __future__ import annotations

from fastworker.lifecycle import State
from fastworker.tasks import Task
from fastworker.views import Explanation
from fastworker_server.engine import Engine

COUNT_AHEAD_UP_TO = 100_000
"""In longer lanes the exact place is not counted."""


def explain(engine: Engine, task: Task, now: float) -> Explanation:
    """The reason that holds now."""
    match task.state:
        case State.QUEUED:
            return _queued(engine, task)
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
            return _say(task, "waiting", "it waits for other tasks to end")
        case _:
            because = f" ({task.reason})" if task.reason else ""
            return _say(task, "ended", f"it has ended: {task.state}{because}")


def _queued(engine: Engine, task: Task) -> Explanation:
    lane = engine.lanes.lane(task.queue, task.name)
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
    if not lane.route.workers:
        advice = "start a worker with the module that defines it, or check the spelling of the name"
        return _say(task, "no capable worker", f"no connected worker knows a task named {task.name!r}", advice=advice)
    if not any(worker.usable for worker in lane.route.workers):
        return _say(task, "workers silent", "the workers that know it are disconnected, silent or draining")
    slots = sum(worker.slots for worker in lane.route.workers)
    ahead = _ahead(engine, task)
    place = f"; {ahead} tasks go before it" if ahead else ""
    return _say(task, "workers busy", f"all {slots} slots of the workers that know it are taken{place}", ahead=ahead)


def _running(engine: Engine, task: Task, now: float) -> Explanation:
    worker = engine.workers.get(task.worker or "")
    seconds = now - (task.started_at or now)
    reason = f"it is running: attempt {task.attempt} at {task.worker}, for {seconds:.1f} s"
    if worker is not None and not worker.connected:
        return _say(task, "worker away", f"{reason}; the connection to that worker is broken and is awaited")
    if worker is not None and worker.silent:
        return _say(task, "worker silent", f"{reason}; that worker has been silent for {now - worker.last_heard:.0f} s")
    return _say(task, "running", reason)


def _ahead(engine: Engine, task: Task) -> int | None:
    lane = engine.lanes.lane(task.queue, task.name)
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
