"""Every way in which a task can wait has its own word, and a sentence with the facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fastworker.lifecycle import State
from fastworker.limits import RateLimit, TaskLimits
from fastworker.tasks import Backoff, Options, Priority, Task, Ties
from fastworker_server.explain import explain
from fastworker_server.workers import WorkerPlace
from tests.server.stage import START, Stage, submission

Scene = Callable[[Stage], object]
LATER = Backoff("constant", 5.0, 5.0, jitter=False)


def busy(stage: Stage) -> None:
    stage.join("w", 1)
    stage.submit("running", priority=Priority.CRITICAL)
    stage.submit("ahead", priority=Priority.HIGH)
    stage.submit("t")
    stage.started()


def running(stage: Stage) -> None:
    stage.join("w", 1)
    stage.submit("t")
    stage.started()
    stage.advance(3.0)


def failed_once(stage: Stage) -> None:
    stage.join("w", 1)
    stage.submit("t", retries=1, backoff=LATER)
    stage.started()
    stage.report("t", "failed")
    stage.advance(2.0)


def paused_queue(stage: Stage) -> None:
    stage.engine.lanes.pause("mail", None)
    stage.submit("t", queue="mail")


def paused_name(stage: Stage) -> None:
    stage.engine.lanes.pause(None, "add")
    stage.submit("t")


def no_capable_worker(stage: Stage) -> None:
    stage.join("w", 1, "sub")
    stage.submit("t")


def draining(stage: Stage) -> None:
    stage.engine.disconnected(stage.join("w", 1), stage.now)
    stage.submit("t")


def recovering(stage: Stage, state: State) -> None:
    task = Task(1, "t", "add", "[]", Options(), "default", 2, START, state=state, worker="w", attempt=1)
    stage.engine.recover([task], [WorkerPlace("w", "host", 1), WorkerPlace("v", "host", 2)], stage.now)


def worker_away(stage: Stage) -> None:
    running(stage)
    stage.engine.disconnected(stage.engine.workers["w"], stage.now)


def worker_silent(stage: Stage) -> None:
    running(stage)
    stage.advance(12.0, silent=True)


def crashed(stage: Stage) -> None:
    running(stage)
    stage.task("t").crashes = 2
    stage.engine.leave(stage.engine.workers["w"], stage.now)


def await_others(stage: Stage) -> None:
    stage.submit("first")
    stage.engine.submit(replace(submission("t"), ties=Ties(needs=("first",))), stage.now)


def rate_limited(stage: Stage) -> None:
    stage.limit("add", TaskLimits((RateLimit(1, 10.0),)))
    stage.join("w", 5)
    stage.submit("first")
    stage.started()
    stage.advance(3.0)
    stage.submit("t")


def one_at_a_time(stage: Stage) -> None:
    stage.limit("add", TaskLimits(max_concurrency=1))
    stage.join("w", 5)
    stage.submit("first")
    stage.started()
    stage.submit("t")


def one_at_a_time_for_each_key(stage: Stage) -> None:
    stage.limit("add", TaskLimits(max_concurrency=1))
    stage.join("w", 5)
    for task_id in ("first", "t"):
        stage.engine.submit(replace(submission(task_id), ties=Ties(key="anna")), stage.now)
        stage.started()


def held_by_a_task(stage: Stage) -> None:
    stage.join("w", 5)
    task = stage.submit("first")
    stage.engine.hold_lane(task, 30.0, stage.now)
    stage.submit("t")


def paused_worker(stage: Stage) -> None:
    stage.join("w", 5)
    stage.engine.pause_worker("w", paused=True)
    stage.submit("t")


SCENES: dict[str, tuple[Scene, str]] = {
    "paused": (paused_queue, "the queue 'mail' is paused"),
    "paused ": (paused_name, "tasks named 'add' are paused"),
    "no worker": (lambda stage: stage.submit("t"), "no worker is connected"),
    "no capable worker": (no_capable_worker, "no connected worker knows a task named 'add'"),
    "workers silent": (draining, "disconnected, silent or draining"),
    "workers busy": (busy, "all 1 slots of the workers that know it are taken; 1 tasks go before it"),
    "scheduled": (lambda stage: stage.submit("t", delay=7.5), "it is to start in 7.5 s"),
    "retrying": (failed_once, "attempt 1 failed: builtins.ValueError: bad luck; the next is in 3.0 s"),
    "recovering": (lambda stage: recovering(stage, State.RUNNING), "that worker is awaited"),
    "recovering ": (lambda stage: recovering(stage, State.QUEUED), "waits for 2 workers to come back"),
    "running": (running, "attempt 1 at w, for 3.0 s"),
    "worker away": (worker_away, "the connection to that worker is broken and is awaited"),
    "worker silent": (worker_silent, "that worker has been silent for 12 s"),
    "waiting": (await_others, "it waits for add (first, queued)"),
    "rate limit": (rate_limited, "tasks 'add' are limited to 1/10s; the next may start in 7.0 s"),
    "concurrency limit": (one_at_a_time, "1 tasks 'add' run, and 1 is the limit"),
    "concurrency limit ": (one_at_a_time_for_each_key, "1 tasks 'add' with the key 'anna' run, and 1 is the limit"),
    "held by a task": (held_by_a_task, "has asked that none like it starts for another 30.0 s"),
    "workers paused": (paused_worker, "the workers that know it are paused: w"),
    "ended": (crashed, "it has ended: failed (crashed)"),
}


@pytest.mark.parametrize(("code", "scene", "reason"), [(code.strip(), *scene) for code, scene in SCENES.items()])
def test_why_a_task_is_not_running(code: str, scene: Scene, reason: str) -> None:
    stage = Stage()
    scene(stage)
    said = explain(stage.engine, stage.task("t"), stage.now)
    assert (said.task, said.code) == ("t", code)
    assert reason in said.reason


def test_every_state_has_an_explanation() -> None:
    stage = Stage()
    task = stage.submit("t")
    for state in set(State) - {State.NEW}:
        task.state = state
        assert explain(stage.engine, task, stage.now).reason


def test_what_to_do_is_said_where_something_can_be_done() -> None:
    advice = {}
    for code, (scene, _) in SCENES.items():
        stage = Stage()
        scene(stage)
        advice[code] = explain(stage.engine, stage.task("t"), stage.now).advice
    assert advice["paused"] == "fastworker resume --queue mail"
    assert advice["paused "] == "fastworker resume --name add"
    assert advice["no worker"] == "fastworker worker start"
    assert advice["no capable worker"] == (
        "check the spelling of the name, or start a worker with the module that defines it"
    )
    assert advice["workers busy"] is None


def test_a_name_that_is_spelled_alike_is_named() -> None:
    stage = Stage()
    stage.join("w", 1, "sub", "add")
    stage.submit("t", "ad")
    assert explain(stage.engine, stage.task("t"), stage.now).advice == (
        "check the spelling ('add' is known), or start a worker with the module that defines it"
    )


def test_the_moment_when_it_changes_by_itself_is_said() -> None:
    stage = Stage()
    task = stage.submit("t", delay=7.5)
    assert explain(stage.engine, task, stage.now).until == START + 7.5


def test_the_place_in_the_queue_counts_better_priorities_of_other_lanes() -> None:
    stage = Stage()
    stage.join("w", 1, "add", "sub")
    stage.submit("running", priority=Priority.CRITICAL)
    stage.started()
    for n in range(3):
        stage.submit(f"better {n}", "sub", priority=Priority.HIGH)
        stage.submit(f"same {n}", "add")
    assert explain(stage.engine, stage.submit("t", "add"), stage.now).ahead == 6
