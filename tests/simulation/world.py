"""Virtual time: one heap of events, and processes that can be stopped, continued and killed.

Each process has an event loop of its own, as asyncio code expects. All loops share the world's heap, so one seed gives
one order of events.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, cast

EPOCH = 1_750_000_000.0
"""When each simulation begins."""
HAND_OVER = 0.0005
"""What a thread says reaches its event loop so many seconds later: long enough for a crash in between."""


class World:
    """Time, and what is to happen."""

    def __init__(self) -> None:
        self.now = EPOCH
        self.steps = 0
        self._numbers = itertools.count()
        self._later: list[tuple[float, int, Process, asyncio.Handle, bool]] = []
        self._ready: deque[tuple[Process, asyncio.Handle, bool]] = deque()
        self.on_error: Callable[[Process, str], None] = lambda _process, _text: None
        self.after_step: Callable[[Process], None] = lambda _process: None

    def soon(self, process: Process, handle: asyncio.Handle, io: bool = False) -> None:
        """Run in this moment, after what is to run in it already."""
        self._ready.append((process, handle, io))

    def at(self, when: float, process: Process, handle: asyncio.Handle, io: bool = False) -> None:
        """Run at a time."""
        heapq.heappush(self._later, (max(when, self.now), next(self._numbers), process, handle, io))

    def run(self, until: float) -> None:
        """Let time run on."""
        while True:
            while self._ready:
                self._step(*self._ready.popleft())
            if not self._later or self._later[0][0] > until:
                break
            self.now, _, process, handle, io = heapq.heappop(self._later)
            self._step(process, handle, io)
        self.now = until

    def _step(self, process: Process, handle: asyncio.Handle, io: bool) -> None:
        if process.dead or handle.cancelled():
            return
        if process.stopped:
            process.frozen.append((handle, io))
            return
        self.steps += 1
        asyncio._set_running_loop(cast(Any, process.loop))
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(None)
        self.after_step(process)


class Process:
    """A process of the simulation."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.loop = VirtualLoop(self)
        self.stopped = False
        self.dead = False
        self.leaving = False
        self.calm_since = world.now  # when it was last stopped or continued
        self.frozen: list[tuple[asyncio.Handle, bool]] = []
        self.on_kill: list[Callable[[], None]] = []

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True
        self.calm_since = self.world.now

    def resume(self) -> None:
        """SIGCONT. An event loop takes in what has arrived before it looks at its timers."""
        self.stopped = False
        self.calm_since = self.world.now
        frozen, self.frozen = self.frozen, []
        for handle, io in sorted(frozen, key=lambda entry: not entry[1]):
            self.world.soon(self, handle, io)

    def kill(self) -> None:
        """SIGKILL."""
        self.dead = True
        self.frozen.clear()
        for call in self.on_kill:
            call()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine in this process."""
        self.loop.call_soon(self.begin, work)

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine, from inside of this process."""
        task = self.loop.create_task(work)
        self.loop.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.loop.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.world.on_error(self, f"{type(task.exception()).__name__}: {task.exception()}")


class VirtualLoop:
    """The event loop of one process: as much of asyncio's as the library uses."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.world = process.world
        self.tasks: set[asyncio.Task[Any]] = set()
        self._as_asyncio: Any = self

    def time(self) -> float:
        return self.world.now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._as_asyncio, context)
        self.world.soon(self.process, handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_later(HAND_OVER, callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._as_asyncio, context)
        self.world.at(when, self.process, handle)
        return handle

    def call_io(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """Something arrives from outside."""
        self.world.at(when, self.process, asyncio.Handle(callback, args, self._as_asyncio), io=True)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._as_asyncio)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self._as_asyncio, name=name or "simulated", context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()

        def work() -> None:
            try:
                settle, value = future.set_result, func(*args)
            except Exception as error:
                settle, value = future.set_exception, error
            if not future.done():
                settle(value)

        executor.submit(work)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.process.dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.process.dead:
            error = context.get("exception")
            self.world.on_error(self.process, f"{context.get('message')}: {type(error).__name__}: {error}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when they come up."""
