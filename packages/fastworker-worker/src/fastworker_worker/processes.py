"""The process slots of a worker: one process per running attempt, kept warm, replaced when it dies."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fastworker.errors import TaskDefinitionError
from fastworker.function import AnyTaskFunction
from fastworker.log_records import logs_as_json
from fastworker.protocol import Outcome
from fastworker.sizes import megabytes
from fastworker.tasks import ErrorInfo
from fastworker_worker.executor import Execution
from fastworker_worker.process_slot import ProcessSlot
from fastworker_worker.wire import Setup

logger = logging.getLogger("fastworker.worker")

AHEAD: Final = 16
"""Short attempts that a process is given in advance, so that not each costs a message to it."""
SHORT: Final = 0.002
"""Seconds: what usually runs longer than this is given to a process that is free, and to no other."""
_NEW_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Recycle:
    """When a process slot is replaced by a fresh one, after the end of a task.

    Attributes:
        after_tasks: so many tasks have run in it; None: however many.
        above_bytes: it holds more memory than that; None: however much.
    """

    after_tasks: int | None = None
    above_bytes: int | None = None


class Pool(Protocol):
    """What process slots need of the pool."""

    def next_for_process(self, *, first: bool) -> Execution | None:
        """What a process is to run next. `first`: it has nothing else; else only what can wait for no free slot."""

    def ended_in_process(self, execution: Execution, outcome: Outcome) -> None:
        """How an attempt ended."""

    def put_back(self, executions: Sequence[Execution]) -> None:
        """Attempts that were not taken up after all."""

    def slot_is_free(self) -> None:
        """A process that ran something has nothing to do any more."""


class ProcessSlots:
    """All process slots of a worker, started when they are needed.

    Args:
        most: how many at once.
        recycle: when one is replaced.
        pool: hands out attempts, and is told how they end; all in the event loop.
    """

    def __init__(self, most: int, recycle: Recycle, pool: Pool) -> None:
        self._most = most
        self._recycle = recycle
        self._pool = pool
        self._modules: list[str] = []
        self._idle: list[ProcessSlot] = []
        self._all: set[ProcessSlot] = set()
        self._by_execution: dict[Execution, ProcessSlot] = {}
        self._run_times: dict[str, float] = {}
        self._keepers: set[asyncio.Task[None]] = set()
        self._closed = False
        self._expects_death = False

    # ---- in ------------------------------------------------------------------------------------------------------

    def run(self, execution: Execution) -> None:
        """Run an attempt in a process that is free, or in a new one."""
        module = execution.function.function.__module__ if execution.function is not None else ""
        if module and module not in self._modules:
            self._modules.append(module)
        self._give(self._idle.pop() if self._idle else self._start(), [execution])
        self._expects_death |= _may_be_killed(execution)
        self._keep_one_waiting()

    def _give(self, slot: ProcessSlot, executions: Sequence[Execution]) -> None:
        for execution in executions:
            execution.begin()
            self._by_execution[execution] = slot
        slot.give(executions)

    def _start(self) -> ProcessSlot:
        setup = Setup(list(self._modules), list(sys.path), logging.getLogger().level, logs_as_json())
        slot = ProcessSlot(setup, self)
        self._all.add(slot)
        self._keepers.add(slot.keeper)
        slot.keeper.add_done_callback(self._keepers.discard)
        return slot

    def _keep_one_waiting(self) -> None:
        """Where processes die, have one that can take the next place: to start one takes half a second."""
        if self._expects_death and not self._idle and not self._closed and len(self._all) <= self._most:
            self._idle.append(self._start())

    def load(self, modules: Iterable[str]) -> None:
        """Modules that each process is to import at its start; if there are any, start the first process."""
        self._modules = list(modules)
        if self._modules and not self._all:
            self._idle.append(self._start())

    # ---- what the slots tell -------------------------------------------------------------------------------------

    def ready(self, slot: ProcessSlot) -> None:
        """Its imports are done."""
        slot.held = slot.memory() if self._recycle.above_bytes is not None else 0

    def not_ready(self, slot: ProcessSlot, error: ErrorInfo) -> None:
        """It could not import the task functions, or start their resources."""
        logger.error("a process for tasks could not be started: %s: %s\n%s", error.type, error.message, error.traceback)
        slot.kill("it could not be started")
        execution = self._let_go(slot)
        if execution is not None:
            self._pool.ended_in_process(execution, execution.failed_with(error))
            self._pool.slot_is_free()

    def ended(self, slot: ProcessSlot, outcome: Outcome) -> None:
        """The first of its attempts has ended."""
        execution = self._let_go(slot)
        if execution is None:
            return
        before = self._run_times.get(execution.order.name, outcome.ran)
        self._run_times[execution.order.name] = before + _NEW_SHARE * (outcome.ran - before)
        self._pool.ended_in_process(execution, outcome)
        slot.worn = slot.worn or self._is_used_up(slot, execution)
        if slot.usable:
            self._go_on(slot)
        elif not slot.queue:
            self._pool.slot_is_free()

    def died(self, slot: ProcessSlot, error: ErrorInfo) -> None:
        """Its process has ended, and with it the attempt that it had taken up; the others were not touched."""
        self._all.discard(slot)
        if slot in self._idle:
            self._idle.remove(slot)
        if not slot.queue:
            return
        self._expects_death = True
        if slot.began is not None or not slot.is_ready or _is_to_end(slot.queue[0]):
            execution = self._let_go(slot)
            if execution is not None:
                self._pool.ended_in_process(execution, _outcome_of_death(execution, error))
        untouched = [execution for _ in range(len(slot.queue)) if (execution := self._let_go(slot)) is not None]
        self._pool.put_back(untouched)
        self._pool.slot_is_free()
        self._keep_one_waiting()

    def _let_go(self, slot: ProcessSlot) -> Execution | None:
        if not slot.queue:
            return None
        execution = slot.queue.popleft()
        del self._by_execution[execution]
        return execution

    # ---- one after the other -------------------------------------------------------------------------------------

    def _go_on(self, slot: ProcessSlot) -> None:
        """Give it what comes next, or let it wait."""
        if not slot.worn and len(slot.queue) <= AHEAD // 2:
            following = self._following(slot)
            if following:
                self._give(slot, following)
        if slot.queue:
            return
        if slot.worn:
            self._all.discard(slot)
            slot.retire()
        else:
            self._idle.append(slot)
        self._pool.slot_is_free()

    def _following(self, slot: ProcessSlot) -> list[Execution]:
        """What it is to run next: one attempt, or some if all are short."""
        taken: list[Execution] = []
        room = AHEAD - len(slot.queue)
        if self._recycle.after_tasks is not None:
            room = min(room, self._recycle.after_tasks - slot.tasks)
        while len(taken) < room and all(map(self._is_short, taken[-1:] or list(slot.queue)[-1:])):
            following = self._pool.next_for_process(first=not slot.queue and not taken)
            if following is None:
                break
            taken.append(following)
        return taken

    def _is_short(self, execution: Execution) -> bool:
        usual = self._run_times.get(execution.order.name, SHORT)
        return usual < SHORT and not _may_be_killed(execution)

    # ---- recycling -----------------------------------------------------------------------------------------------

    def _is_used_up(self, slot: ProcessSlot, execution: Execution) -> bool:
        most, above = self._recycle.after_tasks, self._recycle.above_bytes
        if above is not None:
            before, slot.held = slot.held, slot.memory()
            slot.greediest = max(slot.greediest, (slot.held - before, f"{execution.order.name} {execution.order.id}"))
            if slot.held > above:
                grown, task = slot.greediest
                logger.warning(
                    "process %d is replaced: it holds %s, over the limit of %s; the most, %s, came with task %s",
                    slot.process.pid if slot.process else 0, megabytes(slot.held), megabytes(above), megabytes(grown),
                    task,
                )  # fmt: skip
                return True
        return most is not None and slot.tasks >= most

    # ---- limits and stops ----------------------------------------------------------------------------------------

    def kill(self, execution: Execution, why: str) -> None:
        """End the process of an attempt; its outcome comes when the process has died.

        One that is still to follow another is killed when its turn has come, if it has not ended by then.
        """
        slot = self._by_execution.get(execution)
        if slot is not None and slot.execution is execution:
            slot.kill(why)
        elif slot is not None:
            asyncio.get_running_loop().call_later(SHORT, self.kill, execution, why)

    def memory(self, execution: Execution) -> int:
        """Bytes that the process of an attempt holds; 0 if there is none."""
        slot = self._by_execution.get(execution)
        return slot.memory() if slot is not None else 0

    def all_memory(self) -> int:
        """Bytes that all processes hold; what they share counts for each of them."""
        return sum(slot.memory() for slot in self._all)

    def has_begun(self, execution: Execution) -> bool:
        """Whether the process of an attempt has taken it up; its time counts from there."""
        slot = self._by_execution.get(execution)
        began = slot.began if slot is not None and slot.execution is execution else None
        if began is not None:
            execution.ticking = began
        return began is not None

    def close(self) -> None:
        """Let all processes end; those that run something are killed."""
        self._closed = True
        for slot in list(self._all):
            if slot.execution is not None:
                slot.kill("its worker has stopped")
            else:
                slot.retire()

    async def all_ended(self) -> None:
        """Wait until all processes have, after `close`."""
        if self._keepers:
            await asyncio.wait(self._keepers)

    def pids(self) -> Sequence[int]:
        """The process ids."""
        return [slot.process.pid for slot in self._all if slot.process is not None]


def _may_be_killed(execution: Execution) -> bool:
    """Whether an attempt has a limit at which its process is killed."""
    memory_limit = execution.function.memory_limit if execution.function is not None else None
    return execution.order.hard_timeout is not None or memory_limit is not None


def _is_to_end(execution: Execution) -> bool:
    """Whether it was its process's task to die with it."""
    return execution.stopping or execution.overdue


def _outcome_of_death(execution: Execution, error: ErrorInfo) -> Outcome:
    if execution.stopping:
        return execution.killed()
    if execution.overdue:
        return execution.overran("its process was killed")
    return execution.crashed(error)


def check_importable(functions: Iterable[AnyTaskFunction]) -> None:
    """Refuse task functions that another process can't import.

    Raises:
        TaskDefinitionError: says which, and what to do.
    """
    for function in functions:
        if function.run_in == "process" and function.function.__module__ in ("__main__", "__mp_main__"):
            raise TaskDefinitionError(
                f"{function.name}: run_in='process' needs a function that another process can import, and __main__ "
                "can't be imported: move it to a module of its own, e.g. tasks.py"
            )
