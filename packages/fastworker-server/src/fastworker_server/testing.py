"""The real control plane and worker in memory, for tests of applications: no process, no disk, no waiting."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from pydantic_core import from_json

from fastworker import current
from fastworker.errors import FastWorkerError
from fastworker.function import AnyTaskFunction, Registry, registry
from fastworker.lifecycle import State
from fastworker.settings import Settings
from fastworker.tasks import TaskInfo
from fastworker_server.clock import Clock
from fastworker_server.control_plane import ControlPlane
from fastworker_worker.worker import Worker

AGES: Final = 1e9
"""Seconds that nobody is missed for, however far the clock is moved."""
SETTLE_WITHIN: Final = 10.0
LOOK_EVERY: Final = 0.0005
_numbers = itertools.count(1)


class StillRunning(FastWorkerError, AssertionError):
    """Tasks did not end: they wait for real time, or for the test."""


class StoppedClock(Clock):
    """A clock that is moved by hand."""

    def __init__(self, start: datetime) -> None:
        self.at = start.timestamp()

    def now(self) -> float:
        """Seconds since 1970."""
        return self.at


class Moves:
    """The test's hold on the clock."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue

    @property
    def now(self) -> datetime:
        """The time in the queue, UTC."""
        return datetime.fromtimestamp(self._queue._clock.at, UTC)

    def advance(
        self,
        by: timedelta | float = 0.0,
        *,
        seconds: float = 0.0,
        minutes: float = 0.0,
        hours: float = 0.0,
        days: float = 0.0,
    ) -> None:
        """Let time pass, and let everything that becomes due in it happen, in order: retries, delays, expiries.

        Args:
            by: seconds, or a timedelta; the others are added.

        Raises:
            ValueError: that would be backwards.
            StillRunning: a task did not end by itself.
        """
        more = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days).total_seconds()
        total = more + (by.total_seconds() if isinstance(by, timedelta) else by)
        if total < 0:
            raise ValueError(f"time does not go backwards: {total} s")
        self._queue._do(self._queue._advance(total))


class TaskQueue:
    """A queue for one test: `with TaskQueue() as queue:`, or the pytest fixture `task_queue`.

    Task functions run in it as in production, in a worker of this process. Time stands still: what is to happen later
    happens when the test moves the clock.

    Args:
        tasks: the task functions; default: those that `@task` registered.
        start: what time it is.
        slots: tasks that run at once.

    Attributes:
        url: where clients find it. The fixture says it to all clients of the process.
        clock: moves the time.
    """

    def __init__(self, tasks: Registry = registry, *, start: datetime | None = None, slots: int = 8) -> None:
        self.url = f"inproc://fastworker-test-{os.getpid()}-{next(_numbers)}"
        self.clock = Moves(self)
        self._clock = StoppedClock(start or datetime.now(UTC))
        self._tasks = tasks
        self._slots = slots
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fastworker-test", daemon=True)

    # ---- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        current.forget_default()
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        settings = Settings(
            store="memory", processes=0, listen=[self.url], lease=AGES, silence=AGES, reconnect=AGES
        )  # fmt: skip
        self._control_plane = ControlPlane(settings, self._clock)
        self._control_plane.addresses = [self.url]
        await self._control_plane.start()
        self._worker = Worker(self.url, slots=self._slots, name="test", tasks=self._tasks)
        await self._worker.start(SETTLE_WITHIN)

    async def _stop(self) -> None:
        await self._worker.drain(0.0)
        await self._control_plane.stop()

    def _do[T](self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # ---- time ----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until every task that can run now has ended.

        Raises:
            StillRunning: one did not, within 10 real seconds.
        """
        self._do(self._settle())

    async def _settle(self) -> None:
        engine = self._control_plane.engine
        deadline = self._loop.time() + SETTLE_WITHIN
        self._control_plane.peers.pump()
        while engine.counts[State.RUNNING]:
            if self._loop.time() > deadline:
                running = [f"{task.name} {task.id}" for task in engine.tasks.values() if task.state is State.RUNNING]
                raise StillRunning(f"still running after {SETTLE_WITHIN:g} s of real time: {', '.join(running)}")
            await asyncio.sleep(LOOK_EVERY)
            self._control_plane.peers.pump()

    async def _advance(self, seconds: float) -> None:
        target = self._clock.at + seconds
        engine = self._control_plane.engine
        await self._settle()
        while (due := engine.timers.next_due()) <= target:
            self._clock.at = max(self._clock.at, due)
            await self._settle()
        self._clock.at = target
        await self._settle()

    # ---- what was submitted --------------------------------------------------------------------------------------

    def submitted(self, task: str | AnyTaskFunction | None = None) -> Sequence[TaskInfo]:
        """The tasks that were submitted so far, in order; those of one name, if one is given."""
        name = task if isinstance(task, str) or task is None else task.name
        return [info for info in self._do(self._infos()) if name in (None, info.name)]

    async def _infos(self) -> list[TaskInfo]:
        engine = self._control_plane.engine
        tasks = [*engine.ended.values(), *engine.tasks.values()]
        return [TaskInfo.of(task) for task in sorted(tasks, key=lambda task: task.seq)]

    def assert_submitted(self, task: str | AnyTaskFunction, *args: Any, **kwargs: Any) -> TaskInfo:
        """A task of this name was submitted, with these arguments if any are given; the last such one.

        Raises:
            AssertionError: says what was submitted instead.
        """
        found = self.submitted(task)
        wanted = self._arguments(task, args, kwargs)
        matching = [info for info in found if wanted is None or _parsed(info) == wanted(info)]
        if matching:
            return matching[-1]
        name = task if isinstance(task, str) else task.name
        everything = "\n".join(f"  {info.name} {info.args}" for info in self.submitted()) or "  nothing"
        asked = f" with {args} {kwargs}" if wanted is not None else ""
        raise AssertionError(f"{name} was not submitted{asked}. Submitted were:\n{everything}")

    def _arguments(
        self, task: str | AnyTaskFunction, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[TaskInfo], Any] | None:
        """What the arguments are in JSON; None: whatever they are. What was left out has its default."""
        if not args and not kwargs:
            return None
        function = self._tasks.get(task) if isinstance(task, str) else task
        if function is None:
            return lambda _: {"*": list(args), **kwargs} if kwargs else list(args)
        bound = from_json(function.signature.encode(args, kwargs))
        return lambda info: bound if isinstance(_parsed(info), dict) else list(bound.values())

    def assert_nothing_submitted(self, task: str | AnyTaskFunction | None = None) -> None:
        """No task was submitted; none of this name, if one is given.

        Raises:
            AssertionError: says what was.
        """
        found = self.submitted(task)
        if found:
            raise AssertionError("submitted were:\n" + "\n".join(f"  {info.name} {info.args}" for info in found))


def _parsed(info: TaskInfo) -> Any:
    return from_json(info.args or "null")
