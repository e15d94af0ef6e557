"""Where attempts run: at most `slots` at once, the best priority first, the rest in a backlog.

Coroutines run on the event loop, blocking functions in threads, and what asks for it in process slots. A thread or a
process that has finished takes the next attempt of its kind from the backlog by itself, so short tasks stream without a
hand-over for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import heapq
import io
import logging
import math
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from fastworker.context import enter_task
from fastworker.errors import TaskTimeout
from fastworker.function import AnyTaskFunction
from fastworker.middleware import Middleware
from fastworker.protocol import Outcome, Token
from fastworker.sizes import megabytes
from fastworker_worker.executor import Execution, call_blocking, run_async, run_blocking
from fastworker_worker.memory import resident
from fastworker_worker.processes import ProcessSlots, Recycle

logger = logging.getLogger("fastworker.worker")

LONGEST_TURN: Final = 0.005
"""Seconds of short coroutines in a row, before the event loop gets to anything else."""
WATCH_EVERY: Final = 0.02
"""Seconds between looks at the time limits of threads, while any runs under one."""


class Pool:
    """Runs executions.

    Args:
        slots: how many at once.
        middleware: goes round each run; if none of it suspends, blocking tasks never touch the event loop.
        on_outcomes: gets the outcomes, in the event loop, many at a time.
        recycle: when a process slot is replaced.
    """

    def __init__(
        self,
        slots: int,
        middleware: Sequence[Middleware],
        on_outcomes: Callable[[Sequence[Outcome]], None],
        recycle: Recycle = Recycle(),  # noqa: B008 - it is frozen
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots = slots
        self._free = slots
        self._middleware = middleware
        self._suspends = any(layer.suspends for layer in middleware)
        self._on_outcomes = on_outcomes
        self.processes = ProcessSlots(slots, recycle, self)
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()  # guards all that follows; held for a few instructions only
        self._backlog: list[tuple[int, int, Execution]] = []
        self._held: dict[tuple[str, int], Execution] = {}
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = 0
        self._idle_threads = 0
        self._done: deque[Outcome] = deque()
        self._collecting = False
        self._limited: set[Execution] = set()
        self._pumping = False
        self._watching: asyncio.TimerHandle | None = None

    # ---- in ------------------------------------------------------------------------------------------------------

    def load(self, modules: Sequence[str]) -> None:
        """Modules that each process slot is to import at its start."""
        self.processes.load(modules)

    def add(self, executions: Sequence[Execution]) -> None:
        """Take attempts in, and start what can start."""
        with self._lock:
            for execution in executions:
                self._held[execution.order.id, execution.order.attempt] = execution
                heapq.heappush(self._backlog, (execution.order.rank, execution.number, execution))
        self.pump()

    def pump(self) -> None:
        """Start what can start. Coroutines run up to their first pause right here, so short ones stream too."""
        if self._pumping:
            return
        self._pumping = True
        give_way_at = time.monotonic() + LONGEST_TURN
        try:
            while (execution := self._next()) is not None:
                self._start(execution)
                if time.monotonic() > give_way_at:
                    self._loop.call_soon(self.pump)
                    break
        finally:
            self._pumping = False
        self._collect()

    def _next(self) -> Execution | None:
        with self._lock:
            if self._free == 0 or not self._backlog:
                return None
            self._free -= 1
            return heapq.heappop(self._backlog)[2]

    def _start(self, execution: Execution) -> None:
        if execution.in_process:
            self.processes.run(execution)
            self._watch(execution)
        elif execution.blocks and not self._suspends:
            self._in_some_thread(partial(self._work, execution))
        else:
            _ = asyncio.Task(self._run(execution), loop=self._loop, eager_start=True)  # kept by the execution

    # ---- coroutines ----------------------------------------------------------------------------------------------

    async def _run(self, execution: Execution) -> None:
        execution.coroutine = asyncio.current_task()
        self._watch(execution)
        outcome = await run_async(execution, self._middleware, self._call_in_thread)
        if self._finish(execution, outcome):
            self.slot_is_free()

    def slot_is_free(self) -> None:
        """What ran in a slot has ended."""
        with self._lock:
            self._free += 1
        self.pump()

    async def _call_in_thread(self, execution: Execution, function: AnyTaskFunction) -> Any:
        """The blocking function, for a coroutine that carries its middleware."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def job() -> None:
            enter_task(execution.current)
            try:
                with self._in_thread(execution):
                    value = call_blocking(execution, function)
                settle = partial(_settle, future, value, None)
            except BaseException as error:
                settle = partial(_settle, future, None, error)
            enter_task(None)
            self._loop.call_soon_threadsafe(settle)

        self._in_some_thread(partial(contextvars.copy_context().run, job))  # what the middleware has set goes along
        return await asyncio.shield(future)  # a thread can't be interrupted: its end is awaited all the same

    # ---- processes -----------------------------------------------------------------------------------------------

    def next_for_process(self, *, first: bool) -> Execution | None:
        """What a process that stays busy is to run next; if it is not the first, only what finds no free slot."""
        with self._lock:
            if not self._backlog or not self._backlog[0][2].in_process or (self._free and not first):
                return None
            execution = heapq.heappop(self._backlog)[2]
        self._watch(execution)
        return execution

    def put_back(self, executions: Sequence[Execution]) -> None:
        """Attempts that a process was given, and has not taken up."""
        with self._lock:
            for execution in executions:
                heapq.heappush(self._backlog, (execution.order.rank, execution.number, execution))

    def ended_in_process(self, execution: Execution, outcome: Outcome) -> None:
        """How an attempt ended."""
        self._finish(execution, outcome)

    # ---- threads -------------------------------------------------------------------------------------------------

    def _in_some_thread(self, job: Callable[[], None]) -> None:
        with self._lock:
            fresh = self._idle_threads == 0
            if fresh:
                self._threads += 1
            else:
                self._idle_threads -= 1
        self._jobs.put(job)
        if fresh:
            threading.Thread(target=self._serve, name="fastworker-task", daemon=True).start()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job
            with self._lock:
                self._idle_threads += 1

    def _work(self, execution: Execution | None) -> None:
        """Run an attempt, then what the backlog has for a thread, until it has nothing."""
        while execution is not None:
            outcome = None
            try:
                with self._in_thread(execution):
                    outcome = run_blocking(execution, self._middleware)
                _let_an_interrupt_land()
            except TaskTimeout as late:  # raised by the watchdog in the very moment of the end
                outcome = outcome or execution.failed(late)
            if os.getpid() != self._pid:
                os._exit(0)  # a copy that the task forked, and that has come to the end of the task function too
            if not self._finish(execution, outcome):
                logger.warning("the stuck thread of task %s has ended by itself", execution.order.id)
                return  # its slot has long been given to others
            execution = self._next_for_thread()

    def _next_for_thread(self) -> Execution | None:
        with self._lock:
            if self._backlog and self._backlog[0][2].blocks:
                return heapq.heappop(self._backlog)[2]
            self._free += 1
            coroutine_waits = bool(self._backlog)
        if coroutine_waits:
            self._loop.call_soon_threadsafe(self.pump)
        return None

    @contextlib.contextmanager
    def _in_thread(self, execution: Execution) -> Iterator[None]:
        """Note which thread runs an attempt, so that its time limit can reach it; not a moment longer."""
        if execution.order.timeout is None and execution.order.hard_timeout is None:
            yield
            return
        execution.thread = threading.get_ident()
        self._watch(execution)
        try:
            yield
        finally:
            with self._lock:
                execution.thread = None

    # ---- out -----------------------------------------------------------------------------------------------------

    def _finish(self, execution: Execution, outcome: Outcome) -> bool:
        """Report how an attempt ended; False if that was done already, because it was given up."""
        with self._lock:
            if execution.told:
                return False
            execution.told = True
            self._limited.discard(execution)
            self._done.append(outcome)
            if self._collecting:
                return True
            self._collecting = True
        self._collect_soon()
        return True

    def _collect_soon(self) -> None:
        if threading.get_ident() != self._thread:
            with contextlib.suppress(RuntimeError):  # the loop is closed: a thread outlived its worker
                self._loop.call_soon_threadsafe(self._collect)
        elif not self._pumping:  # else `pump` will do it
            self._loop.call_soon(self._collect)

    def _collect(self) -> None:
        with self._lock:
            self._collecting = False
            outcomes = list(self._done)
            self._done.clear()
            for outcome in outcomes:
                self._held.pop((outcome.id, outcome.attempt), None)
        if outcomes:
            self._on_outcomes(outcomes)

    # ---- stop ----------------------------------------------------------------------------------------------------

    def stop(self, token: Token) -> bool:
        """Give an attempt up. True if it can't be: it runs in a thread, and was only asked."""
        with self._lock:
            execution = self._held.get((token.id, token.attempt))
            entry = (execution.order.rank, execution.number, execution) if execution is not None else None
            waiting = entry in self._backlog
            if entry is not None and waiting:
                self._backlog.remove(entry)
                heapq.heapify(self._backlog)
        if execution is None:
            return False
        execution.stopping = True
        execution.current.cancelled = True
        if waiting:
            self._finish(execution, execution.never_started())
            return False
        if execution.in_process:
            self.processes.kill(execution, "it was cancelled")
            return False
        if execution.coroutine is not None and not execution.blocks:
            execution.coroutine.cancel()
            return False
        return True

    def give_back(self, older_than: float | None = None) -> list[Token]:
        """Take what has not started out of the backlog.

        Args:
            older_than: only if the head has been waiting for more seconds than that; None: in any case.
        """
        now = time.monotonic()
        with self._lock:
            if older_than is not None and (not self._backlog or now - self._oldest() < older_than):
                return []
            given = [Token(execution.order.id, execution.order.attempt) for _, _, execution in self._backlog]
            self._backlog.clear()
            for token in given:
                del self._held[token.id, token.attempt]
        return given

    def _oldest(self) -> float:
        return min(execution.ticking for _, _, execution in self._backlog)

    def held(self) -> list[Token]:
        """All attempts that are here."""
        with self._lock:
            return [Token(task_id, attempt) for task_id, attempt in self._held]

    def executions(self) -> list[Execution]:
        """All attempts that are here."""
        with self._lock:
            return list(self._held.values())

    @property
    def waiting(self) -> int:
        """Attempts in the backlog."""
        return len(self._backlog)

    def memory(self) -> int | None:
        """Bytes that this process and its process slots hold; None if that can't be told."""
        return resident(self._pid) + self.processes.all_memory() or None

    def cancel_all(self) -> None:
        """Interrupt every coroutine and ask every thread."""
        for execution in self.executions():
            self.stop(Token(execution.order.id, execution.order.attempt))

    def close(self) -> None:
        """Let the threads and processes end."""
        self.processes.close()
        for _ in range(self._threads):
            self._jobs.put(None)

    async def ended(self) -> None:
        """Wait until the processes have ended, after `close`; threads can't be waited for."""
        await self.processes.all_ended()

    # ---- limits --------------------------------------------------------------------------------------------------

    def _watch(self, execution: Execution) -> None:
        """Look at the limits of an attempt until it ends, if they are ours to watch."""
        if not _has_limits(execution):
            return
        with self._lock:
            self._limited.add(execution)
        self._loop.call_soon_threadsafe(self._watch_limits)

    def _watch_limits(self) -> None:
        if self._watching is None and self._limited:
            self._watching = self._loop.call_later(WATCH_EVERY, self._check_limits)

    def _check_limits(self) -> None:
        self._watching = None
        now = time.monotonic()
        with self._lock:
            limited = list(self._limited)
            for execution in limited:
                if now - execution.ticking > (execution.order.timeout or math.inf):
                    _interrupt(execution)
        for execution in limited:
            if execution.in_process and not self.processes.has_begun(execution):
                continue  # its process is still starting
            if now - execution.ticking > (execution.order.hard_timeout or math.inf):
                self._end_by_force(execution)
            elif execution.in_process:
                self._check_memory(execution)
        self._watch_limits()

    def _check_memory(self, execution: Execution) -> None:
        limit = execution.function.memory_limit if execution.function is not None else None
        held = self.processes.memory(execution) if limit is not None else 0
        if limit is not None and held > limit:
            why = f"it held {megabytes(held)}, over its memory_limit of {megabytes(limit)}"
            self.processes.kill(execution, why)

    def _end_by_force(self, execution: Execution) -> None:
        """The hard limit has passed. What can't be killed is given up: it is reported, and its slot goes to others."""
        execution.overdue = True
        if execution.in_process:
            self.processes.kill(execution, "hard_timeout")
            return
        where = _stack(execution)
        kind = "thread" if execution.blocks else "coroutine"
        if not self._finish(execution, execution.overran(f"its {kind} could not be stopped and goes on beside")):
            return
        logger.error(
            "task %s %s is past its hard_timeout of %g s. Its %s can't be stopped: it goes on, and another takes its "
            "place. It is at:\n%s",
            execution.order.name, execution.order.id, execution.order.hard_timeout, kind, where,
        )  # fmt: skip
        if execution.coroutine is not None:
            execution.coroutine.cancel()
        self.slot_is_free()


def _has_limits(execution: Execution) -> bool:
    order = execution.order
    memory = execution.function.memory_limit if execution.function is not None else None
    soft = order.timeout is not None and execution.blocks
    return soft or order.hard_timeout is not None or memory is not None


def _stack(execution: Execution) -> str:
    """Where the code of an attempt is now."""
    frame = sys._current_frames().get(execution.thread or 0)
    if execution.coroutine is not None and not execution.blocks:
        text = io.StringIO()
        execution.coroutine.print_stack(file=text)
        return text.getvalue().rstrip()
    return "".join(traceback.format_stack(frame)).rstrip() if frame is not None else "  (unknown)"


def _interrupt(execution: Execution) -> None:
    """Raise `TaskTimeout` in the thread, at its next line of Python; once."""
    if execution.thread is not None and not execution.interrupted:
        execution.interrupted = True
        _raise_in_thread(ctypes.c_ulong(execution.thread), ctypes.py_object(TaskTimeout))


def _let_an_interrupt_land() -> None:
    """An exception set by `_raise_in_thread` is raised at a call at the latest: let that be this one."""


_raise_in_thread: Any = ctypes.pythonapi.PyThreadState_SetAsyncExc
"""C API reference, `PyThreadState_SetAsyncExc`."""


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(_settleable(error))


def _settleable(error: BaseException) -> BaseException:
    """A future refuses StopIteration."""
    return RuntimeError("the task raised StopIteration") if isinstance(error, StopIteration) else error
