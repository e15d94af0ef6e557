"""A worker: takes attempts from the control plane, runs them in its pool, reports what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import platform
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from fastworker.connection import Connection
from fastworker.context import CurrentTask
from fastworker.credentials import Credential
from fastworker.errors import PayloadSealed
from fastworker.function import Registry, registry
from fastworker.middleware import active_middleware
from fastworker.protocol import (
    PROTOCOL_VERSION,
    Asked,
    Credit,
    Handback,
    Heartbeat,
    Hello,
    Message,
    Note,
    Order,
    Outcome,
    Outcomes,
    Recorded,
    Run,
    Stop,
    Token,
    Welcome,
)
from fastworker.release import RELEASE
from fastworker.resources import running
from fastworker.sealing import Sealer, sealer
from fastworker.session import FRAME_BYTES
from fastworker_worker.capture import capture
from fastworker_worker.executor import Execution, describe
from fastworker_worker.pool import Pool
from fastworker_worker.processes import Recycle, check_importable

logger = logging.getLogger("fastworker.worker")

HEARTBEAT_EVERY: Final = 2.0
NOTES_EVERY: Final = 0.2
"""Seconds that what a task says waits for more of it."""
PARTS_GO_NOW: Final = 100
"""Parts of one task that don't wait for the next heartbeat."""
BACKLOG_AT_MOST: Final = 0.04
"""Seconds that an attempt may wait here before all that wait are handed back: the run times were guessed wrong."""
SWALLOWED_AFTER: Final = 2.0
"""Seconds after which an interrupted coroutine that still runs is said to go on."""
INTERRUPT_GRACE: Final = 2.0
"""Seconds that interrupted coroutines have to clean up when the worker stops."""


class Worker:
    """Runs the tasks of one process.

    Args:
        url: where the control plane is.
        credential: the key of a role or certificates, where the address needs them.
        slots: tasks to run at once.
        own: belongs to the control plane, so works only where no other worker can.
        name: default: host, process id and a random part.
        tasks: the task functions; default: those that `@task` registered.
        recycle: when a process slot is replaced.

    Raises:
        TaskDefinitionError: a task function is to run in a process that can't import it.
    """

    def __init__(
        self,
        url: str,
        credential: Credential | None = None,
        *,
        slots: int = 8,
        own: bool = False,
        name: str | None = None,
        tasks: Registry = registry,
        recycle: Recycle = Recycle(),  # noqa: B008 - it is frozen
    ) -> None:
        check_importable(tasks)
        self.name = name or f"{platform.node()}:{os.getpid()}:{secrets.token_hex(2)}"
        self._slots = slots
        self._own = own
        self._tasks = tasks
        self._recycle = recycle
        self._definitions = [function.definition() for function in tasks]
        self._numbers = itertools.count(1)
        self._unrecorded: dict[int, Outcomes] = {}
        self._outcomes_sent = 0
        self._welcome = False  # in this session
        self._given_back: set[tuple[str, int]] = set()  # while they ran: what becomes of them is not ours to say
        self._notes_due = False
        self._noted: set[CurrentTask] = set()
        self._draining = asyncio.Event()
        self._stopped = asyncio.Event()
        self._sealing = sealer()
        self._names: dict[tuple[str, int], str] = {}  # of the attempts that are here, where what they say is sealed
        self._connection = Connection(
            url, credential, hello=self._hello, on_message=self._received, on_welcome=self._welcomed
        )

    # ---- life ----------------------------------------------------------------------------------------------------

    async def start(self, timeout: float | None = None) -> None:
        """Connect to the control plane, and be ready for tasks.

        Raises:
            ConfigurationError: a resource could not be made.
            TimeoutError: no control plane answered.
            Refused: it wants nothing to do with us.
        """
        self._loop = asyncio.get_running_loop()
        await running.start()
        capture(prints=any(function.log_prints for function in self._tasks))
        self._middleware = active_middleware()
        self._pool = Pool(self._slots, self._middleware, self._report, self._recycle)
        self._pool.load(_modules_for_processes(self._tasks))
        await self._connection.open(timeout)
        self._loop.call_later(HEARTBEAT_EVERY, self._beat)
        logger.info("worker %s is ready: %d slots, %d task functions", self.name, self._slots, len(self._definitions))

    async def drain(self, grace: float, deliver: float | None = None) -> None:
        """Stop: take nothing more, hand back what has not started, let the rest run, report it, say goodbye.

        Args:
            grace: seconds that running tasks get to end.
            deliver: seconds to try to have the last outcomes recorded; default `INTERRUPT_GRACE`.

        The order matters. Better run twice than lost: what still runs after `grace` seconds is handed back
        and interrupted.
        """
        if self._draining.is_set():
            return
        self._draining.set()
        logger.info("worker %s drains: %d tasks have %g s to end", self.name, len(self._pool.held()), grace)
        self._connection.post(Credit(0))
        self._hand_back(self._pool.give_back())
        if not await self._emptied(grace):
            logger.warning("worker %s interrupts %d tasks: the grace period is over", self.name, len(self._pool.held()))
            given = self._pool.held()
            self._given_back.update((token.id, token.attempt) for token in given)
            self._connection.post(Handback(given, started=True))
            self._pool.cancel_all()
            await self._emptied(INTERRUPT_GRACE)
        await self._recorded(INTERRUPT_GRACE if deliver is None else deliver)
        self._stopped.set()  # nothing is said from here on, e.g. no heartbeat while spans are exported
        await self._connection.close()
        self._pool.close()
        await self._pool.ended()
        for error in await running.stop():
            logger.error("an on_shutdown function failed: %r", error)
        for middleware in self._middleware:
            await asyncio.to_thread(middleware.flush)

    async def _emptied(self, timeout: float) -> bool:
        return await _becomes_true(lambda: not self._pool.held(), timeout)

    async def _recorded(self, timeout: float) -> bool:
        return await _becomes_true(lambda: not self._unrecorded, timeout)

    # ---- what the control plane says -----------------------------------------------------------------------------

    def _hello(self) -> Hello:
        self._welcome = False
        return Hello(
            "worker",
            PROTOCOL_VERSION,
            self.name,
            platform.node(),
            os.getpid(),
            RELEASE,
            slots=0 if self._draining.is_set() else self._slots,
            own=self._own,
            definitions=self._definitions,
            holding=self._holding(),
        )

    def _holding(self) -> list[Token]:
        """The attempts that are here, or have ended here and are not recorded."""
        held = [token for token in self._pool.held() if (token.id, token.attempt) not in self._given_back]
        unrecorded = [Token(item.id, item.attempt) for batch in self._unrecorded.values() for item in batch.items]
        return held + unrecorded

    def _welcomed(self, welcome: Welcome) -> None:
        self._welcome = True
        for token in welcome.drop:
            self._pool.stop(token)
        for batch in self._unrecorded.values():
            self._connection.post(batch, _size(batch.items))

    def _received(self, message: Message) -> None:
        match message:
            case Run(items=orders):
                self._run(orders)
            case Recorded(number=number):
                for recorded in [n for n in self._unrecorded if n <= number]:
                    del self._unrecorded[recorded]
            case Stop(items=tokens):
                self._stop(tokens)
            case _:
                logger.warning("worker %s does not understand a %s", self.name, message.kind)

    def _run(self, orders: Sequence[Order]) -> None:
        if self._draining.is_set():
            self._hand_back([Token(order.id, order.attempt) for order in orders])
            return
        opened = orders if self._sealing is None else self._opened(orders, self._sealing)
        self._pool.add(
            [Execution(order, self._tasks.get(order.name), next(self._numbers), self._has_said) for order in opened]
        )
        if self._pool.waiting:
            self._loop.call_later(BACKLOG_AT_MOST, self._relieve)

    def _opened(self, orders: Sequence[Order], sealing: Sealer) -> list[Order]:
        """The orders that can be read; the others have failed, at this worker and at every other with these keys."""
        opened = []
        for order in orders:
            self._names[order.id, order.attempt] = order.name
            try:
                opened.append(sealing.open_order(order))
            except PayloadSealed as error:
                logger.error("task %s of %s is refused: %s", order.id, order.name, error)
                failed = Outcome(order.id, order.attempt, "failed", 0.0, 0.0, error=describe(error), retryable=False)
                self._loop.call_soon(self._report, [failed])
        return opened

    def _sealed(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Outcomes as the control plane may see them."""
        if self._sealing is None:
            return outcomes
        return [self._sealing.seal_outcome(item, self._names.pop((item.id, item.attempt), "")) for item in outcomes]

    def _stop(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            if self._pool.stop(token):
                self._connection.post_item(Asked, token)
            else:
                self._loop.call_later(SWALLOWED_AFTER, self._say_if_it_goes_on, token)

    def _say_if_it_goes_on(self, token: Token) -> None:
        """A coroutine may swallow its cancellation: then it was no more than asked."""
        if token in self._pool.held() and not self._stopped.is_set():
            self._connection.post_item(Asked, token)

    # ---- what we say ---------------------------------------------------------------------------------------------

    def _report(self, outcomes: Sequence[Outcome]) -> None:
        """Report outcomes, and keep them until they are recorded."""
        batches = []
        told = [outcome for outcome in outcomes if (outcome.id, outcome.attempt) not in self._given_back]
        if self._welcome:
            self._say_notes()
        for part in _parts(self._sealed(told)):
            self._outcomes_sent += 1
            batches.append(Outcomes(self._outcomes_sent, part))
        self._unrecorded.update((batch.number, batch) for batch in batches)
        if not self._welcome:
            return  # they go with the others as soon as the session has begun
        for batch in batches:
            self._connection.post(batch, _size(batch.items))
        self._connection.flush()

    def _hand_back(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            self._names.pop((token.id, token.attempt), None)
            self._connection.post_item(Handback, token)

    def _relieve(self) -> None:
        """Hand the backlog back if it does not move."""
        if not self._draining.is_set():
            self._hand_back(self._pool.give_back(older_than=BACKLOG_AT_MOST))

    def _has_said(self, task: CurrentTask) -> None:
        """A task has said something, perhaps in a thread: it goes out a little later, but many parts go now."""
        self._noted.add(task)
        if self._notes_due and task.waiting_parts != PARTS_GO_NOW:
            return
        self._notes_due = True
        wait = 0.0 if task.waiting_parts >= PARTS_GO_NOW else NOTES_EVERY
        with contextlib.suppress(RuntimeError):  # the loop is closed: a thread outlived its worker
            self._loop.call_soon_threadsafe(self._loop.call_later, wait, self._say_notes)

    def _notes(self) -> list[Note]:
        notes = []
        while self._noted:  # tasks in threads add to it meanwhile
            said = self._noted.pop()
            while (note := said.take_note()) is not None:
                notes.append(note if self._sealing is None else self._sealing.seal_note(note, said.name))
                if not said.waiting_parts:
                    break
        return notes

    def _say_notes(self) -> None:
        self._notes_due = False
        if self._stopped.is_set():
            return
        for note in self._notes():
            self._connection.post(Heartbeat([note]), 100 + sum(map(len, note.log)) + sum(map(len, note.parts)))

    def _beat(self) -> None:
        """Say that we live."""
        if self._stopped.is_set():
            return
        self._connection.post(Heartbeat(memory=self._pool.memory()))
        self._loop.call_later(HEARTBEAT_EVERY, self._beat)


def _modules_for_processes(tasks: Registry) -> list[str]:
    """What a process slot has to import to know the task functions that run in it."""
    modules = {function.function.__module__ for function in tasks if function.run_in == "process"}
    return sorted(modules | set(running.modules())) if modules else []


def _size(outcomes: Sequence[Outcome]) -> int:
    """Roughly the bytes of the message."""
    payloads = sum(len(outcome.result or "") for outcome in outcomes)
    tracebacks = sum(len(outcome.error.traceback) for outcome in outcomes if outcome.error is not None)
    return payloads + tracebacks + 120 * len(outcomes)


def _parts(outcomes: Sequence[Outcome]) -> Iterator[list[Outcome]]:
    """The outcomes in parts of which each fits a frame; a large one goes alone."""
    if _size(outcomes) <= FRAME_BYTES:
        yield list(outcomes)
        return
    part: list[Outcome] = []
    size = 0
    for outcome in outcomes:
        size += _size([outcome])
        if part and size > FRAME_BYTES:
            yield part
            part, size = [], _size([outcome])
        part.append(outcome)
    if part:
        yield part


async def _becomes_true(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait until the condition holds; False if that takes too long."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - threads change it too
        await asyncio.sleep(0.005)
    return condition()
