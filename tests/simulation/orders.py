"""What simulated clients order beside tasks: cancel, requeue, pause, reprioritise, set limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastworker.codec import encode_untyped
from fastworker.errors import Refused, TaskNotFound
from fastworker.lifecycle import State
from fastworker.limits import make_limits
from fastworker.tasks import PRIORITIES
from tests.simulation.ledger import short
from tests.simulation.plan import NAMES
from tests.simulation.processes import ClientProcess
from tests.simulation.wishes import QUEUES

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

LIMITABLE = ("rated", "narrow", "keyed", "fair", "step", "quick")
Held = tuple[str, str]
"""What is paused: `queue`, `name` or `worker`, and which."""


async def cancel(process: ClientProcess, simulation: Simulation, task_id: str) -> None:
    """Cancel a task."""
    ledger = simulation.ledger
    ledger.cancels_asked.add(task_id)
    answer = await process.client.cancel(task_id)
    ledger.say(process.name, f"cancelled {short(task_id)}: {answer}")
    if answer == "was_queued" and simulation.checker.state_of(task_id) is State.CANCELLED:
        ledger.cancelled.add(task_id)  # else somebody has requeued it already


async def cancel_workflow(process: ClientProcess, simulation: Simulation, task_id: str) -> None:
    """Cancel all that belongs to a task."""
    ledger = simulation.ledger
    workflow = simulation.checker.graphs.workflow(task_id) or task_id
    ledger.workflow_cancels_asked.add(workflow)
    exists = task_id in ledger.accepted
    try:
        count = await process.client.cancel_workflow(task_id)
        ledger.say(process.name, f"cancelled {count} tasks of the workflow of {short(task_id)}")
    except TaskNotFound:
        simulation.checker.require(not exists, f"{short(task_id)} was accepted and is not found")


async def requeue(process: ClientProcess, simulation: Simulation, task_id: str) -> None:
    """Run a task again; now and then on other arguments."""
    ledger, random = simulation.ledger, process.random
    ledger.requeues_asked.add(task_id)
    exists = task_id in ledger.accepted
    args = [random.randrange(1000), ["edited"]] if random.random() < 0.3 else None
    if args is not None:
        ledger.args_asked[task_id].append(encode_untyped(args, {}, task_id))
    wanted = len(ledger.args_asked[task_id])
    try:
        answer = await process.client.requeue(task_id, args)
        ledger.say(process.name, f"requeued {short(task_id)}: {answer}")
        if answer:
            ledger.requeues_told.add(task_id)
        if answer and args is not None and len(ledger.args_asked[task_id]) == wanted:
            simulation.checker.keeps_args(task_id, ledger.args_asked[task_id][-1])
    except TaskNotFound:
        simulation.checker.require(not exists, f"{short(task_id)} was accepted and is not found")
    except Refused:
        pass  # the store can't be read now


async def reprioritise(process: ClientProcess, simulation: Simulation, task_id: str) -> None:
    """Give a task another priority."""
    ledger = simulation.ledger
    exists, priority = task_id in ledger.accepted, process.random.choice(PRIORITIES)
    ledger.ranks_asked[task_id].append(priority.rank)
    wanted = len(ledger.ranks_asked[task_id])
    try:
        answer = await process.client.reprioritise(task_id, priority)
        ledger.say(process.name, f"gave {short(task_id)} the priority {priority}: {answer}")
        if answer and len(ledger.ranks_asked[task_id]) == wanted:
            simulation.checker.keeps_rank(task_id, priority.rank)
    except TaskNotFound:
        simulation.checker.require(not exists, f"{short(task_id)} was accepted and is not found")


async def set_limits(process: ClientProcess, simulation: Simulation) -> None:
    """Set the limits of a name, or those of its definition again."""
    random, limits = process.random, simulation.checker.limits
    name = random.choice(LIMITABLE)
    if random.random() < 0.3:
        wanted = limits.asked(name, None)
        await process.client.reset_limits(name)
    else:
        rates = [f"{random.randint(2, 8)}/{random.randint(1, 3)}s" for _ in range(random.choice((0, 1, 1, 2)))]
        most = random.choice((None, None, 1, 2, 3))
        wanted = limits.asked(name, make_limits(rates, most))
        await process.client.set_limits(name, rate_limit=rates, max_concurrency=most)
    limits.answered(name, wanted, simulation.world.now)
    simulation.ledger.say(process.name, f"limited {name}: {wanted}")


# ---- pauses ----------------------------------------------------------------------------------------------------------


def some_to_hold(process: ClientProcess, simulation: Simulation) -> Held:
    """A queue, a name or a worker."""
    random = process.random
    workers = list(simulation.workers)
    return random.choice(
        (("queue", random.choice(QUEUES)), ("name", random.choice(NAMES)), ("worker", random.choice(workers)))
    )


async def pause(process: ClientProcess, simulation: Simulation, what: Held) -> None:
    """Hold it."""
    kind, value = what
    resumed, alone = simulation.ledger.resumes[what], not simulation.ledger.resuming[what]
    await process.client.pause(**{kind: value})
    if simulation.ledger.resumes[what] == resumed and alone:  # no `resume` may have overtaken it
        simulation.ledger.say(process.name, f"paused {what}")
        simulation.ledger.paused.add(what)


async def resume(process: ClientProcess, simulation: Simulation, what: Held) -> None:
    """Let it go on."""
    kind, value = what
    simulation.ledger.resumes[what] += 1
    simulation.ledger.resuming[what] += 1  # until it is answered, it may still come after a later `pause`
    simulation.ledger.paused.discard(what)
    await process.client.resume(**{kind: value})
    simulation.ledger.resuming[what] -= 1


def all_to_hold(simulation: Simulation) -> list[Held]:
    """All that may be paused."""
    queues = [("queue", queue) for queue in sorted(set(QUEUES))]
    return [*queues, *(("name", name) for name in NAMES), *(("worker", name) for name in simulation.workers)]
