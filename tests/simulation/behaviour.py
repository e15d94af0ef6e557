"""What simulated clients do: submit, wait, order, ask, and submit again what they submitted before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from itertools import repeat
from random import Random
from typing import TYPE_CHECKING, Any

from fastworker.ending import Ending
from fastworker.errors import (
    ConnectionFailed,
    DuplicateSubmission,
    FastWorkerError,
    Refused,
    TaskNotFound,
    UnknownDependency,
)
from fastworker.protocol import Submission
from fastworker.tasks import is_idempotent_id
from tests.simulation import orders, wishes
from tests.simulation.ledger import Ledger, short
from tests.simulation.processes import ClientProcess

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

Order = Callable[[ClientProcess, "Simulation", str], Coroutine[Any, Any, None]]
ORDERS: dict[str, Order] = {
    "cancel": orders.cancel,
    "cancel_workflow": orders.cancel_workflow,
    "requeue": orders.requeue,
    "reprioritise": orders.reprioritise,
}
"""Those that are about one task."""


async def behave(process: ClientProcess, simulation: Simulation) -> None:
    """The life of a client, until the busy time is over."""
    await process.client.start()
    random, plan = process.random, simulation.plan
    actions, weights = list(plan.actions), list(plan.actions.values())
    while simulation.world.now < simulation.quiet_from:
        await asyncio.sleep(random.expovariate(1 / plan.pace))
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
        case "submit_again" if some is not None and _may_be_known(process, ledger, some):
            await _submit(process, simulation, [replace(ledger.submitted[some], again=True)])
        case "submit_again":
            pass
        case "ask":
            await _ask(process, some)
        case "pause":
            await orders.pause(process, simulation, orders.some_to_hold(process, simulation))
        case "resume":
            await orders.resume(process, simulation, orders.some_to_hold(process, simulation))
        case "limit":
            await orders.set_limits(process, simulation)
        case _ if action in ORDERS:
            if some is not None:
                await ORDERS[action](process, simulation, some)
        case _:
            await _submit(process, simulation, _wish(process, simulation, action))


def _may_be_known(process: ClientProcess, ledger: Ledger, task_id: str) -> bool:
    """Whether this client can know the id: it is its own, or was accepted, or is made of a key."""
    is_own = short(task_id).startswith(f"{process.name.removeprefix('client-')}.")
    return is_own or task_id in ledger.accepted or is_idempotent_id(task_id)


def _wish(process: ClientProcess, simulation: Simulation, action: str) -> list[Submission]:
    """What is to be submitted."""
    random, accepted = process.random, simulation.ledger.in_order
    match action:
        case "unique":
            return [wishes.unique(process, random)]
        case "idempotent":
            return [wishes.idempotent(process, random)]
        case "crowd":
            return wishes.crowd(process, random)
        case "graph":
            submissions = wishes.graph(process, random)
            simulation.ledger.graphs.append([submission.id for submission in submissions])
            return submissions
        case "dependent" if accepted:
            return [wishes.dependent(process, random, accepted)]
        case _:
            return [wishes.plain(process, random) for _ in range(_size(random))]


def _size(random: Random) -> int:
    return random.choice((1, 1, 1, 2, 5, 20))


async def _submit(process: ClientProcess, simulation: Simulation, submissions: list[Submission]) -> None:
    """Submit until it is accepted, as a patient application does; then wait for the ends of some."""
    ledger, client = simulation.ledger, process.client
    ids = [submission.id for submission in submissions]
    ledger.submitting[process.name] += 1
    for submission in submissions:
        ledger.submits(submission)
    strict = process.random.random() < 0.1
    ledger.say(process.name, f"submits {' '.join(map(short, ids))}")
    while True:
        try:
            handles = await client.submit_functions(repeat(None), submissions, strict=strict)
            break
        except DuplicateSubmission:
            ledger.say(process.name, f"has {' '.join(map(short, ids))} rejected")
            ledger.submitting[process.name] -= 1
            simulation.checker.rejected(submissions)
            return
        except UnknownDependency as error:  # what it needs was submitted, but never got there
            ledger.submitting[process.name] -= 1
            simulation.checker.needs_unknown(submissions, str(error))
            return
        except (Refused, ConnectionFailed):  # the store can't be written, or nobody answers
            submissions = [replace(submission, again=True) for submission in submissions]
        except FastWorkerError:  # strict, and nobody knows the name
            strict = False
            submissions = [replace(submission, again=True) for submission in submissions]
        await asyncio.sleep(1.0)
    ledger.submitting[process.name] -= 1
    taken = [handle.id for handle in handles]
    ledger.say(process.name, f"has {' '.join(map(short, taken))} accepted")
    simulation.checker.accepted(ids, taken)
    for handle in handles[-3:]:
        process.begin(_watch(process, simulation, handle.id, handle._ending if len(handles) == 1 else None))


async def _watch(process: ClientProcess, simulation: Simulation, task_id: str, ending: Ending | None) -> None:
    key = (process.name, task_id)
    if simulation.ledger.watched.get(key) is None:
        simulation.ledger.watched[key] = None
        ended = await process.client.wait(task_id, None, ending)
        simulation.checker.told_end(process.name, ended)


async def resume_all(process: ClientProcess, simulation: Simulation) -> None:
    """The life of the last client: at the end nothing may stay paused."""
    await process.client.start()
    while True:  # a client that was cut off may still get through with its `pause`
        for what in orders.all_to_hold(simulation):
            await orders.resume(process, simulation, what)
        simulation.ledger.all_resumed = True
        await asyncio.sleep(20.0)


async def _ask(process: ClientProcess, some: str | None) -> None:
    client = process.client
    match process.random.randrange(7):
        case 0 if some is not None:
            await _found(client.info(some))
        case 1 if some is not None:
            await _found(client.why(some))
        case 2 if some is not None:
            await _found(client.workflow(some))
        case 3:
            await client.list(limit=5)
        case 4:
            await client.queues()
        case 5:
            await client.limits()
        case _:
            await client.workers()


async def _found(answer: Awaitable[object]) -> None:
    with suppress(TaskNotFound):
        await answer
