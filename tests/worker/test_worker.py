"""A real worker, and a control plane that does what the test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fastworker import current_task
from fastworker.function import Registry, TaskFunction
from fastworker.protocol import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    Asked,
    Credit,
    Goodbye,
    Handback,
    Heartbeat,
    Hello,
    Message,
    Order,
    Outcome,
    Outcomes,
    Recorded,
    Refused,
    Run,
    Stop,
    Token,
    Welcome,
)
from fastworker_worker import Worker
from tests.core.eventually import eventually, for_a_while
from tests.core.fake_control_plane import FakeControlPlane


class Gate:
    """Tasks wait at it until it opens."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.inside: list[str] = []


gate = Gate()


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def wait_in_thread() -> str:
    gate.inside.append(current_task().id)
    assert gate.opened.wait(20)
    return "waited"


async def wait_in_loop() -> str:
    gate.inside.append(current_task().id)
    while not gate.opened.is_set():  # noqa: ASYNC110 - the event is of threads
        await asyncio.sleep(0.002)
    return "waited"


async def swallow() -> str:
    gate.inside.append(current_task().id)
    while not gate.opened.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.002)
    return "swallowed"


def large(size: int) -> str:
    return "\\" * size


def talk() -> None:
    current_task().progress(0.5, "half")
    current_task().log("a line")
    current_task().log("caf\udce9")


FUNCTIONS = (add, wait_in_thread, wait_in_loop, swallow, large, talk)


def registry() -> Registry:
    functions = Registry()
    for function in FUNCTIONS:
        functions.add(TaskFunction(function, function.__name__))
    return functions


@pytest.fixture(autouse=True)
def fresh_gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fresh = Gate()
    monkeypatch.setitem(globals(), "gate", fresh)
    yield
    fresh.opened.set()


class Plane(FakeControlPlane):
    """A control plane with the words that these tests need."""

    def run(self, name: str, args: str = "[]", attempt: int = 1, rank: int = 2, **order: Any) -> str:
        """Order one attempt; ids are numbers."""
        self.ordered = getattr(self, "ordered", 0) + 1
        self.say(Run([Order(str(self.ordered), attempt, name, args, rank, **order)]))
        return str(self.ordered)

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for message in self.heard(Outcomes) for outcome in message.items]

    async def outcome(self, task_id: str) -> Outcome:
        """How an attempt ended, as soon as it is told."""
        [outcome] = await eventually(lambda: [outcome for outcome in self.outcomes if outcome.id == task_id][:1])
        return outcome

    @property
    def handed_back(self) -> list[Token]:
        return [token for message in self.heard(Handback) for token in message.items]


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    """A control plane that listens."""
    plane = Plane(f"ipc://{tmp_path}/s")
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
async def start(plane: Plane) -> AsyncIterator[Callable[..., Any]]:
    """Starts workers, and drains them in the end."""
    workers: list[Worker] = []

    async def start(**options: Any) -> Worker:
        worker = Worker(plane.url, **{"slots": 2, "name": "w", "tasks": registry(), **options})
        await worker.start(10)
        workers.append(worker)
        return worker

    yield start
    gate.opened.set()
    for worker in workers:
        await worker.drain(2.0, deliver=0.05)
    await eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "fastworker-task"])


Start = Callable[..., Any]


# ---- joining -------------------------------------------------------------------------------------------------


async def test_a_worker_says_what_it_can_run_and_how_much(plane: Plane, start: Start) -> None:
    await start(slots=3, own=True)
    [hello] = plane.hellos
    assert (hello.role, hello.version, hello.name) == ("worker", PROTOCOL_VERSION, "w")
    assert (hello.slots, hello.own, hello.holding) == (3, True, [])
    assert [definition.name for definition in hello.definitions] == [function.__name__ for function in FUNCTIONS]
    assert hello.definitions[0].parameters["required"] == ["a", "b"]
    assert hello.definitions[0].doc == "Add two numbers."


async def test_workers_have_names_of_their_own(plane: Plane) -> None:
    first, second = Worker(plane.url, tasks=Registry()), Worker(plane.url, tasks=Registry())
    assert first.name != second.name


async def test_a_worker_without_a_control_plane_gives_up_when_it_is_told_to(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        await Worker(f"ipc://{tmp_path}/nobody", tasks=Registry()).start(0.1)


# ---- running -------------------------------------------------------------------------------------------------


async def test_orders_are_run_and_their_ends_reported(plane: Plane, start: Start) -> None:
    await start()
    by_position, by_name = plane.run("add", "[1,2]"), plane.run("add", '{"a":3,"b":4}', attempt=5)
    assert (await plane.outcome(by_position)).result == "3"
    last = await plane.outcome(by_name)
    assert (last.result, last.attempt) == ("7", 5)


async def test_an_unknown_task_fails_visibly(plane: Plane, start: Start) -> None:
    await start()
    outcome = await plane.outcome(plane.run("removed_yesterday"))
    assert (outcome.status, outcome.retryable) == ("failed", True)
    assert outcome.error is not None
    assert outcome.error.message == "this worker has no task 'removed_yesterday': was it renamed or removed?"


async def test_many_orders_at_once_are_all_run_once(plane: Plane, start: Start) -> None:
    await start(slots=4)
    plane.say(Run([Order(f"t{n}", 1, "add", f"[{n},1]", 2) for n in range(300)]))
    handed_back: set[str] = set()

    def ended() -> bool:
        for token in plane.handed_back:  # a busy machine: what did not move was handed back, so it is ordered again
            if token.id not in handed_back:
                handed_back.add(token.id)
                plane.say(Run([Order(token.id, 2, "add", f"[{token.id[1:]},1]", 2)]))
        return len(plane.outcomes) >= 300

    await eventually(ended)
    assert {outcome.id: outcome.result for outcome in plane.outcomes} == {f"t{n}": str(n + 1) for n in range(300)}
    assert len(plane.outcomes) == 300


async def test_what_a_task_says_travels_with_the_heartbeats(plane: Plane, start: Start) -> None:
    await start()
    task_id = plane.run("talk")
    await plane.outcome(task_id)
    notes = [note for message in plane.heard(Heartbeat) for note in message.notes]
    assert [(note.id, note.progress, note.log) for note in notes] == [(task_id, (0.5, "half"), ["a line", "caf?"])]
    assert plane.got.index(plane.heard(Heartbeat)[-1]) < plane.got.index(plane.heard(Outcomes)[0])


async def test_a_worker_with_nothing_to_do_says_that_it_lives(
    plane: Plane, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastworker_worker.worker.HEARTBEAT_EVERY", 0.02)
    monkeypatch.setattr("fastworker_worker.worker.NOTES_EVERY", 0.01)
    await start()
    await eventually(lambda: len(plane.heard(Heartbeat)) >= 3)


async def test_a_worker_says_how_much_memory_it_holds(
    plane: Plane, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastworker_worker.worker.HEARTBEAT_EVERY", 0.02)
    await start()
    [beat] = await eventually(lambda: plane.heard(Heartbeat)[:1])
    assert beat.memory == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)


async def test_a_backlog_that_does_not_move_is_handed_back(plane: Plane, start: Start) -> None:
    await start(slots=1)
    running, waiting = plane.run("wait_in_thread"), plane.run("add", "[1,2]")
    await eventually(lambda: plane.handed_back == [Token(waiting, 1)])
    assert not plane.heard(Handback)[0].started
    gate.opened.set()
    assert (await plane.outcome(running)).status == "succeeded"
    assert len(plane.outcomes) == 1


async def test_results_that_are_large_together_go_in_frames_that_can_be_sent(plane: Plane, start: Start) -> None:
    """Their escaped text would not fit one frame."""
    await start(slots=8)
    size = MAX_FRAME_BYTES // 10
    ids = [plane.run("large", f"[{size}]") for _ in range(8)]
    for task_id in ids:
        outcome = await plane.outcome(task_id)
        assert outcome.status == "succeeded"
        assert len(json.loads(outcome.result or "")) == size


# ---- stopping one task ---------------------------------------------------------------------------------------


async def test_a_coroutine_is_stopped_and_its_end_reported(plane: Plane, start: Start) -> None:
    await start()
    task_id = plane.run("wait_in_loop")
    await eventually(lambda: gate.inside)
    plane.say(Stop([Token(task_id, 1)]))
    assert (await plane.outcome(task_id)).status == "cancelled"
    assert plane.heard(Asked) == []


async def test_a_coroutine_that_swallows_its_cancellation_was_only_asked(
    plane: Plane, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastworker_worker.worker.SWALLOWED_AFTER", 0.05)
    await start()
    task_id = plane.run("swallow")
    await eventually(lambda: gate.inside)
    plane.say(Stop([Token(task_id, 1)]))
    assert (await eventually(lambda: plane.heard(Asked)))[0].items == [Token(task_id, 1)]
    gate.opened.set()
    assert (await plane.outcome(task_id)).status == "succeeded"


async def test_a_thread_is_asked_and_that_is_said(plane: Plane, start: Start) -> None:
    await start()
    task_id = plane.run("wait_in_thread")
    await eventually(lambda: gate.inside)
    plane.say(Stop([Token(task_id, 1)]))
    await eventually(lambda: plane.heard(Asked) == [Asked([Token(task_id, 1)])])
    gate.opened.set()
    assert (await plane.outcome(task_id)).status == "succeeded"


async def test_an_order_and_its_stop_in_one_breath(plane: Plane, start: Start) -> None:
    await start()
    for n in range(20):
        plane.say(Run([Order(f"t{n}", 1, "wait_in_loop", "[]", 2)]), Stop([Token(f"t{n}", 1)]))
        assert (await plane.outcome(f"t{n}")).status == "cancelled"
    assert (await plane.outcome(plane.run("add", "[1,2]"))).status == "succeeded"


async def test_a_stop_for_what_is_not_here_means_nothing(plane: Plane, start: Start) -> None:
    await start()
    plane.say(Stop([Token("nothing", 1)]))
    assert (await plane.outcome(plane.run("add", "[1,2]"))).status == "succeeded"
    assert plane.heard(Asked) == []


# ---- outcomes are kept until they are recorded -----------------------------------------------------------------


async def test_outcomes_are_sent_again_in_a_new_session_until_they_are_recorded(plane: Plane, start: Start) -> None:
    plane.records = False
    worker = await start()
    first = plane.run("add", "[1,2]")
    await plane.outcome(first)
    second = plane.run("add", "[3,4]")
    await plane.outcome(second)
    before = plane.heard(Outcomes)

    plane.got.clear()
    plane.stop()
    plane.forget()
    plane.start()
    await eventually(lambda: len(plane.hellos) == 2)
    assert plane.hellos[1].holding == [Token(first, 1), Token(second, 1)]
    await eventually(lambda: plane.heard(Outcomes) == before)

    plane.say(Recorded(before[0].number))
    plane.got.clear()
    plane.forget()
    worker._connection.post(Heartbeat())
    await eventually(lambda: plane.heard(Outcomes) == before[1:])
    assert plane.hellos[2].holding == [Token(second, 1)]


async def test_what_was_recorded_is_forgotten(plane: Plane, start: Start) -> None:
    worker = await start()
    await plane.outcome(plane.run("add", "[1,2]"))
    await eventually(lambda: not worker._unrecorded)
    plane.forget()
    plane.got.clear()
    worker._connection.post(Heartbeat())
    await eventually(lambda: len(plane.hellos) == 2)
    assert plane.hellos[1].holding == []
    await for_a_while(0.05)
    assert plane.outcomes == []


async def test_a_task_that_ends_while_the_control_plane_is_away_is_reported_to_the_next_one(
    plane: Plane, start: Start
) -> None:
    worker = await start()
    task_id = plane.run("wait_in_thread")
    await eventually(lambda: gate.inside)
    plane.stop()
    plane.forget()
    await eventually(lambda: not worker._connection.connected)
    gate.opened.set()
    await eventually(lambda: worker._unrecorded)
    plane.start()
    assert (await plane.outcome(task_id)).status == "succeeded"
    assert plane.hellos[-1].holding == [Token(task_id, 1)]
    assert len(plane.outcomes) == 1


async def test_a_worker_that_comes_back_says_what_it_still_runs(plane: Plane, start: Start) -> None:
    worker = await start()
    task_id = plane.run("wait_in_loop", attempt=3)
    await eventually(lambda: gate.inside)
    plane.forget()
    worker._connection.post(Heartbeat())
    await eventually(lambda: len(plane.hellos) == 2)
    assert plane.hellos[1].holding == [Token(task_id, 3)]
    gate.opened.set()
    assert (await plane.outcome(task_id)).attempt == 3


async def test_what_is_held_in_vain_is_dropped_at_the_welcome(plane: Plane, start: Start) -> None:
    worker = await start()
    task_id = plane.run("wait_in_loop")
    await eventually(lambda: gate.inside)
    plane.drop = [Token(task_id, 1), Token("nothing", 1)]
    plane.forget()
    worker._connection.post(Heartbeat())
    assert (await plane.outcome(task_id)).status == "cancelled"


# ---- draining ------------------------------------------------------------------------------------------------


async def test_a_drain_takes_nothing_more_lets_run_reports_and_says_goodbye(plane: Plane, start: Start) -> None:
    worker = await start(slots=1)
    running, waiting = plane.run("wait_in_thread"), plane.run("add", "[1,2]")
    await eventually(lambda: gate.inside == [running])
    draining = asyncio.ensure_future(worker.drain(grace=20))
    await eventually(lambda: Credit(0) in plane.got and Token(waiting, 1) in plane.handed_back)
    late = plane.run("add", "[3,4]")
    await eventually(lambda: Token(late, 1) in plane.handed_back)
    assert not draining.done()
    gate.opened.set()
    await asyncio.wait_for(draining, 10)
    assert [(outcome.id, outcome.status) for outcome in plane.outcomes] == [(running, "succeeded")]
    assert plane.got[-1] == Goodbye()
    assert not any(message.started for message in plane.heard(Handback))


async def test_what_runs_longer_than_the_grace_is_handed_back_and_interrupted(plane: Plane, start: Start) -> None:
    worker = await start()
    running = plane.run("wait_in_loop")
    await eventually(lambda: gate.inside)
    await asyncio.wait_for(worker.drain(grace=0.05), 10)
    assert Handback([Token(running, 1)], started=True) in plane.got
    told = [message for message in plane.got if isinstance(message, Handback | Outcomes)]
    assert isinstance(told[0], Handback)  # before the end of what was interrupted
    assert plane.got[-1] == Goodbye()


async def test_a_thread_that_does_not_end_does_not_hold_the_drain(
    plane: Plane, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastworker_worker.worker.INTERRUPT_GRACE", 0.05)
    worker = await start()
    running = plane.run("wait_in_thread")
    await eventually(lambda: gate.inside)
    await asyncio.wait_for(worker.drain(grace=0.05), 10)
    assert plane.handed_back == [Token(running, 1)]
    assert plane.got[-1] == Goodbye()


async def test_a_drain_waits_until_the_last_outcomes_are_recorded(plane: Plane, start: Start) -> None:
    plane.records = False
    worker = await start()
    await plane.outcome(plane.run("add", "[1,2]"))
    draining = asyncio.ensure_future(worker.drain(grace=5, deliver=20))
    await for_a_while(0.05)
    assert not draining.done()
    plane.say(Recorded(plane.heard(Outcomes)[-1].number))
    await asyncio.wait_for(draining, 10)
    assert plane.got[-1] == Goodbye()


async def test_a_drain_without_a_control_plane_ends_too(plane: Plane, start: Start) -> None:
    worker = await start()
    plane.stop()
    await eventually(lambda: not worker._connection.connected)
    await asyncio.wait_for(worker.drain(grace=1, deliver=0.05), 10)


async def test_a_second_drain_changes_nothing(plane: Plane, start: Start) -> None:
    worker = await start()
    await worker.drain(grace=1)
    await worker.drain(grace=1)
    assert plane.heard(Goodbye) == [Goodbye()]


# ---- what does not belong ------------------------------------------------------------------------------------


async def test_a_message_that_is_not_for_workers_is_a_line_in_the_log(
    plane: Plane, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    await start()
    strange: list[Message] = [Hello("client", 1, "x"), Refused("failed", "no", request=1), Welcome("i", "r")]
    with caplog.at_level(logging.WARNING, "fastworker.worker"):
        plane.say(*strange)
        assert (await plane.outcome(plane.run("add", "[1,2]"))).status == "succeeded"
    assert "does not understand a hello" in caplog.text
    assert "does not understand a refused" in caplog.text
