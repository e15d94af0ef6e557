"""A process slot: `python -m fastworker_worker.slot FD`, started by a worker; runs one order after the other.

It is a process of its own so that whatever a task does to it, up to a segmentation fault, costs that attempt only. It
keeps its imports and resources warm from one order to the next, and ends with its worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any, Final

from fastworker.context import CurrentTask
from fastworker.errors import TaskTimeout
from fastworker.function import AnyTaskFunction, registry
from fastworker.log_records import log_to_standard_error
from fastworker.middleware import Middleware, active_middleware
from fastworker.parent import when_parent_ends
from fastworker.protocol import Order, Outcome
from fastworker.resources import running
from fastworker_worker.capture import capture
from fastworker_worker.executor import Execution, call_blocking, describe, run_async, run_blocking
from fastworker_worker.wire import (
    ERROR,
    NOT_READY,
    NOTE,
    NOTES,
    ORDER,
    OUTCOME,
    OUTCOMES,
    READY,
    SETUP,
    Lines,
    Page,
    Setup,
    read_line,
)

NOTES_EVERY: Final = 0.1
"""Seconds between two notes of a running task."""
PARTS_GO_NOW: Final = 100
"""Parts that don't wait for that."""


class Slot:
    """The slot's end of the line to its worker."""

    def __init__(self, sock: socket.socket, page: Page) -> None:
        self._sock = sock
        self._page = page
        self._lines = Lines()
        self._waiting: list[bytes] = []
        self._saying = threading.Lock()
        self._noted = threading.Event()
        self._current: CurrentTask | None = None
        self._loop = asyncio.new_event_loop()
        self._middleware: tuple[Middleware, ...] = ()
        self._suspends = False
        self._numbers = 0

    # ---- life ----------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run orders until the worker hangs up."""
        os.register_at_fork(after_in_child=self._forked)
        if not self._prepare(SETUP.validate_json(self._next_line() or b"{}")):
            return
        self._middleware = tuple(active_middleware())
        self._suspends = any(layer.suspends for layer in self._middleware)
        self._say(READY, b"")
        threading.Thread(target=self._say_notes, name="fastworker-notes", daemon=True).start()
        while (line := self._next_line()) is not None:
            outcome = self._run(ORDER.validate_json(line))
            if self._sock.fileno() == -1:
                os._exit(0)  # a copy that the task forked, and that has come to the end of the task function too
            self._say(OUTCOME, OUTCOMES.dump_json(outcome, exclude_none=True))
        self._loop.run_until_complete(running.stop())
        for layer in self._middleware:
            layer.flush()

    def _prepare(self, setup: Setup) -> bool:
        sys.path[:] = setup.path
        log_to_standard_error(setup.log_level, as_json=setup.log_as_json)
        try:
            for module in setup.modules:
                importlib.import_module(module)
            self._loop.run_until_complete(running.start())
        except BaseException as error:
            self._say(NOT_READY, ERROR.dump_json(describe(error)))
            return False
        capture(prints=any(function.log_prints for function in registry))
        return True

    def _forked(self) -> None:
        """A task has forked: the copy must not speak for us."""
        self._sock.close()
        self._current = None

    # ---- words ---------------------------------------------------------------------------------------------------

    def _next_line(self) -> bytes | None:
        try:
            return read_line(self._sock, self._lines, self._waiting)
        except OSError:
            return None

    def _say(self, kind: bytes, body: bytes) -> None:
        with self._saying, contextlib.suppress(OSError):  # the worker is gone, and so will we be
            self._sock.sendall(kind + body + b"\n")

    def _has_said(self, current: CurrentTask) -> None:
        """The task has said something: it goes out a little later, but many parts go now."""
        if current.waiting_parts >= PARTS_GO_NOW:
            self._say_note()
        else:
            self._noted.set()

    def _say_notes(self) -> None:
        """Pass on what the task says, at most every `NOTES_EVERY` seconds."""
        pause = threading.Event()
        while True:
            self._noted.wait()
            self._noted.clear()
            self._say_note()
            pause.wait(NOTES_EVERY)

    def _say_note(self) -> None:
        current = self._current
        while current is not None and (note := current.take_note()) is not None:
            self._say(NOTE, NOTES.dump_json(note, exclude_none=True))
            if not current.waiting_parts:
                break

    # ---- one order -----------------------------------------------------------------------------------------------

    def _run(self, order: Order) -> Outcome:
        self._numbers += 1
        self._page.note(self._numbers)
        execution = Execution(order, registry.get(order.name), self._numbers, self._has_said)
        self._current = execution.current
        outcome: Outcome | None = None
        try:
            function = execution.function
            if function is not None and not function.is_async and not self._suspends:
                with _alarm(order.timeout):
                    outcome = run_blocking(execution, self._middleware)
            else:
                outcome = self._loop.run_until_complete(run_async(execution, self._middleware, self._call))
        except TaskTimeout as late:  # the alarm went off in the very moment of the end
            outcome = outcome or execution.failed(late)
        self._say_note()
        return outcome

    async def _call(self, execution: Execution, function: AnyTaskFunction) -> Any:
        """A function that blocks, for a coroutine that carries its middleware."""
        with _alarm(execution.order.timeout):
            return call_blocking(execution, function)


@contextlib.contextmanager
def _alarm(timeout: float | None) -> Iterator[None]:
    """Raise `TaskTimeout` in here after so many seconds, even in a call that waits; once."""
    if timeout is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, partial(_ring, timeout))
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _ring(timeout: float, _number: int, _frame: FrameType | None) -> None:
    raise TaskTimeout(f"it ran longer than its timeout of {timeout:g} s")


def main() -> None:
    """The slot process. Arguments: the descriptors of the socket, the file for last words at a crash, and the page."""
    connection, last_words, page = descriptors = [int(argument) for argument in sys.argv[1:4]]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    faulthandler.enable(last_words)
    when_parent_ends(lambda: os.killpg(0, signal.SIGKILL))  # what the task has started, too
    with socket.socket(fileno=connection) as sock:
        Slot(sock, Page(page)).serve()


if __name__ == "__main__":
    main()
