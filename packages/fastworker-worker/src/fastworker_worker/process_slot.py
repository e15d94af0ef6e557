"""One process slot, as its worker sees it: a process, and the attempts that it has been given."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Sequence
from typing import IO, Final, Protocol

from fastworker.protocol import Outcome
from fastworker.tasks import ErrorInfo
from fastworker_worker.executor import Execution
from fastworker_worker.memory import resident
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
)

MOST_AT_ONCE: Final = 65_536
LAST_WORDS: Final = 20_000
"""Bytes of what Python writes about a crash that are kept."""
START_WITHIN: Final = 60.0
"""Seconds that a process has to import the task functions."""
END_WITHIN: Final = 5.0
"""Seconds that a process that is replaced has to end by itself."""


class SlotKeeper(Protocol):
    """Who is told what a slot does."""

    def ready(self, slot: ProcessSlot) -> None:
        """Its imports are done."""

    def not_ready(self, slot: ProcessSlot, error: ErrorInfo) -> None:
        """It can't run tasks; its process will end."""

    def ended(self, slot: ProcessSlot, outcome: Outcome) -> None:
        """The first of its attempts has ended."""

    def died(self, slot: ProcessSlot, error: ErrorInfo) -> None:
        """Its process has ended."""


class ProcessSlot:
    """One process, the attempt that runs in it, and those that are to follow.

    Args:
        setup: what the process needs before its first order.
        slots: told of what comes from it.
    """

    def __init__(self, setup: Setup, slots: SlotKeeper) -> None:
        self.queue: deque[Execution] = deque()
        self.process: Process | None = None
        self.is_ready = False
        self.worn = False  # to be replaced once it has nothing to do
        self.tasks = 0
        self.held = 0  # bytes, after its last task
        self.greediest = (0, "no task")  # the most that one task has added
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._lines = Lines()
        self._unsent = bytearray()
        self._blocked = False
        self._killed_because: str | None = None
        self._dead = False
        self._sock, self._theirs = socket.socketpair()
        self._sock.setblocking(False)
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the slot
        self._page = Page()
        self._loop.add_reader(self._sock, self._readable)
        self._send(SETUP.dump_json(setup))
        self._too_late = self._loop.call_later(START_WITHIN, self.kill, f"it was not ready within {START_WITHIN:g} s")
        self.keeper = self._loop.create_task(self._keep())

    # ---- life ----------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Start the process, and conclude from its end."""
        files = (self._theirs.fileno(), self._words.fileno(), self._page.fileno())
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fastworker_worker.slot", *map(str, files),
                stdin=PIPE, stdout=None, stderr=None, pass_fds=files, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._theirs.close()
            self._slots.died(self, ErrorInfo("fastworker.ProcessNotStarted", f"no process could be started: {error}"))
            return
        self._theirs.close()
        if self._killed_because is not None:
            self._kill_now()
        code = await self.process.wait()
        self._dead = True
        self._readable()  # what it said last
        self._slots.died(self, self._ending(code))
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._close()

    def _close(self) -> None:
        self._too_late.cancel()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._words.close()
        self._page.close()

    @property
    def began(self) -> float | None:
        """When the process took its attempt up, on the monotonic clock; None if it has not yet."""
        number, at = self._page.read()
        return at if self.queue and number == self.tasks - len(self.queue) + 1 else None

    @property
    def execution(self) -> Execution | None:
        """The attempt that runs, or comes first."""
        return self.queue[0] if self.queue else None

    @property
    def usable(self) -> bool:
        """Whether it can take another attempt."""
        return not self._dead and self._killed_because is None

    def kill(self, why: str) -> None:
        """End the process, and whatever it has started, without asking."""
        self._killed_because = self._killed_because or why
        self._kill_now()

    def _kill_now(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def retire(self) -> None:
        """Let the process end by itself: it finds nothing more to do."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._loop.remove_reader(self._sock)
        self._loop.call_later(END_WITHIN, self.kill, "it did not end when it was replaced")

    def memory(self) -> int:
        """Bytes that the process holds now; 0 if that can't be told."""
        return resident(self.process.pid) if self.process is not None else 0

    def _ending(self, code: int) -> ErrorInfo:
        """How the process ended, for whoever finds its task failed."""
        if self._killed_because is not None:
            message = f"its process was killed (SIGKILL): {self._killed_because}"
        elif code < 0:
            message = f"its process was killed by {_signal_name(-code)}"
        else:
            message = (
                f"its process ended with exit code {code} in the middle of the task: os._exit, or a library's exit"
            )
        self._words.seek(0)
        words = self._words.read(LAST_WORDS).decode("utf-8", "replace")
        return ErrorInfo("fastworker.errors.TaskCrashed", message, words)

    # ---- words ---------------------------------------------------------------------------------------------------

    def give(self, executions: Sequence[Execution]) -> None:
        """Run these attempts, one after the other."""
        self.queue.extend(executions)
        self.tasks += len(executions)
        self._send(b"\n".join([ORDER.dump_json(execution.order, exclude_none=True) for execution in executions]))

    def _send(self, line: bytes) -> None:
        self._unsent += line + b"\n"
        self._writable()

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
            del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:  # it has died: its end is on the way
            self._unsent.clear()
        if self._unsent:
            self._loop.add_writer(self._sock, self._writable)
        elif self._blocked:
            self._loop.remove_writer(self._sock)
        self._blocked = bool(self._unsent)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self._receive()
            while data:
                for line in self._lines.feed(data):
                    self._take(line[:1], line[1:])
                data = self._receive() if len(data) == MOST_AT_ONCE or self._dead else b""

    def _receive(self) -> bytes:
        try:
            data = self._sock.recv(MOST_AT_ONCE)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                raise
            data = b""
        if not data:
            self._loop.remove_reader(self._sock)
        return data

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == OUTCOME:
            self._slots.ended(self, OUTCOMES.validate_json(body))
        elif kind == NOTE and self.execution is not None:
            self.execution.current.pass_on(NOTES.validate_json(body))
        elif kind == READY:
            self.is_ready = True
            self._too_late.cancel()
            self._slots.ready(self)
        elif kind == NOT_READY:
            self._slots.not_ready(self, ERROR.validate_json(body))


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    hints = {"SIGKILL": "from outside, or because the machine ran out of memory"}
    meaning = hints.get(name) or signal.strsignal(number)
    return f"{name} ({meaning})"
