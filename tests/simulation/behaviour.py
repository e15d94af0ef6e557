"""What simulated clients do: submit, wait, cancel, requeue, pause, ask, and submit again what they submitted before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from fastworker.ending import Ending
from fastworker.errors import ConnectionFailed, FastWorkerError, Refused, TaskNotFound
from fastworker.lifecycle import State
from fastworker.protocol import Submission
from fastworker.tasks import PRIORITIES, Backoff, Options
from tests.simulation.ledger import short
from tests.simulation.plan import NAMES
from tests.simulation.processes import ClientProcess

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

ACTIONS = {"submit": 10, "submit_again": 2, "cancel": 2, "requeue": 1, "pause": 1, "resume": 1, "ask": 2}
QUEUES = ("default", "default", "mail")


async def behave(process: ClientProcess, simulation: Simulation) -> None:
    """The life of a client, until the busy time is over."""
    await process.client.start()
    random = process.random
    actions, weights = list(ACTIONS), list(ACTIONS.values())
    while simulation.world.now < simulation.quiet_from:
        await asyncio.sleep(random.expovariate(1 / simulation.plan.pace))
        action = random.choices(actions, weights)[0]
        process.begin(_patiently(_do(process, simulation, action)))


async def _patiently(action: Awaitable[None]) -> None:
    with suppress(ConnectionFailed):  # whether it was done is not known
        await action


async def _do(process: ClientProcess, simulation: Simulation, action: str) -> None:
    random, ledger = process.random, simulation.ledger
    known = list(ledger.submitted)
    some = random.choice(known) if known else None
    match action:
        case "submit":
            await _submit(process, simulation, [_submission(process, random) for _ in range(_size(random))])
        case "submit_again" if some is not None:
            await _submit(process, simulation, [replace(ledger.submitted[some], again=True)])
        case "cancel" if some is not None:
            await _cancel(process, simulation, some)
        case "requeue" if some is not None:
            await _requeue(process, simulation, some)
        case "pause" | "resume":
            what = random.choice((("queue", random.choice(QUEUES)), ("name", random.choice(NAMES))))
            await (_pause if action == "pause" else _resume)(process, simulation, what)
        case "ask":
            await _ask(process, some)
        case _:
            pass


def _size(random: Random) -> int:
    return random.choice((1, 1, 1, 2, 5, 20))


def _submission(process: ClientProcess, random: Random) -> Submission:
    name = random.choice(NAMES)
    said = Options(
        priority=random.choice((None, *PRIORITIES)),
        queue=random.choice(QUEUES),
        retries=random.choice((None, None, 0, 1, 3)) if name != "once" else None,
        backoff=random.choice((None, Backoff("constant", 0.5, 0.5, jitter=False), Backoff("linear", 0.2, 1.0))),
        delay=random.choice((None, None, None, None, random.uniform(0.01, 8.0))),
        expires=random.choice((None, None, None, random.uniform(0.01, 10.0))),
    )
    options = said if random.random() < 0.8 else None
    return Submission(process.new_id(), name, f"[{process.ids}]", options)


async def _submit(process: ClientProcess, simulation: Simulation, submissions: list[Submission]) -> None:
    """Submit until it is accepted, as a patient application does; then wait for the ends of some."""
    ledger, client = simulation.ledger, process.client
    ids = [submission.id for submission in submissions]
    ledger.submitting[process.name] += 1
    ledger.submitted.update({submission.id: submission for submission in submissions})
    ending = None
    strict = process.random.random() < 0.1
    ledger.say(process.name, f"submits {' '.join(map(short, ids))}")
    while True:
        try:
            if len(submissions) == 1 and not strict:
                ending = (await client.submit_function(None, submissions[0]))._ending
            else:
                await client.submit_functions(None, submissions, strict=strict)
            break
        except (Refused, ConnectionFailed):  # the store can't be written, or nobody answers
            submissions = [replace(submission, again=True) for submission in submissions]
        except FastWorkerError:  # strict, and nobody knows the name
            strict = False
        await asyncio.sleep(1.0)
    ledger.say(process.name, f"has {' '.join(map(short, ids))} accepted")
    ledger.submitting[process.name] -= 1
    simulation.checker.accepted(ids)
    for task_id in ids[:3]:
        process.begin(_watch(process, simulation, task_id, ending))


async def _watch(process: ClientProcess, simulation: Simulation, task_id: str, ending: Ending | None) -> None:
    key = (process.name, task_id)
    if simulation.ledger.watched.get(key) is None:
        simulation.ledger.watched[key] = None
        ended = await process.client.wait(task_id, None, ending)
        simulation.checker.told_end(process.name, ended)


async def _cancel(process: ClientProcess, simulation: Simulation, task_id: str) -> None:
    ledger = simulation.ledger
    ledger.cancels_asked.add(task_id)
    answer = await process.client.cancel(task_id)
    ledger.say(process.name, f"cancelled {short(task_id)}: {answer}")
    if answer == "was_queued" and simulation.checker.state_of(task_id) is State.CANCELLED:
        ledger.cancelled.add(task_id)  # else somebody has requeued it already


async def _requeue(process: ClientProcess, simulation: Simulation, task_id: str) -> None:
    ledger = simulation.ledger
    ledger.requeues_asked.add(task_id)
    exists = task_id in ledger.accepted
    try:
        answer = await process.client.requeue(task_id)
        ledger.say(process.name, f"requeued {short(task_id)}: {answer}")
    except TaskNotFound:
        simulation.checker.require(not exists, f"{short(task_id)} was accepted and is not found")
    except Refused:
        pass  # the store can't be read now


async def _pause(process: ClientProcess, simulation: Simulation, what: tuple[str, str]) -> None:
    kind, value = what
    resumed, alone = simulation.ledger.resumes[what], not simulation.ledger.resuming[what]
    await process.client.pause(**{kind: value})
    if simulation.ledger.resumes[what] == resumed and alone:  # no `resume` may have overtaken it
        simulation.ledger.say(process.name, f"paused {what}")
        simulation.ledger.paused.add(what)


async def _resume(process: ClientProcess, simulation: Simulation, what: tuple[str, str]) -> None:
    kind, value = what
    simulation.ledger.resumes[what] += 1
    simulation.ledger.resuming[what] += 1  # until it is answered, it may still come after a later `pause`
    simulation.ledger.paused.discard(what)
    await process.client.resume(**{kind: value})
    simulation.ledger.resuming[what] -= 1


async def resume_all(process: ClientProcess, simulation: Simulation) -> None:
    """The life of the last client: at the end nothing may stay paused."""
    await process.client.start()
    while True:  # a client that was cut off may still get through with its `pause`
        for what in [*(("queue", queue) for queue in sorted(set(QUEUES))), *(("name", name) for name in NAMES)]:
            await _resume(process, simulation, what)
        simulation.ledger.all_resumed = True
        await asyncio.sleep(20.0)


async def _ask(process: ClientProcess, some: str | None) -> None:
    client = process.client
    match process.random.randrange(5):
        case 0 if some is not None:
            await _found(client.info(some))
        case 1 if some is not None:
            await _found(client.why(some))
        case 2:
            await client.list(limit=5)
        case 3:
            await client.queues()
        case _:
            await client.workers()


async def _found(answer: Awaitable[object]) -> None:
    with suppress(TaskNotFound):
        await answer
