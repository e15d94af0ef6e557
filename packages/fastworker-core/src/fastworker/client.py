"""The client: submits tasks, waits for their ends, asks and orders."""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
import socket
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import repeat
from typing import Any, Self, Unpack

from pydantic import SecretStr

from fastworker import current
from fastworker.addresses import candidates
from fastworker.client_schedules import ScheduleCalls
from fastworker.codec import Signature
from fastworker.connection import Connection, refusal
from fastworker.credentials import Credential, credential_for
from fastworker.ending import Ending
from fastworker.errors import ConnectionFailed, NoControlPlane, PayloadTooLarge, ResultTimeout
from fastworker.events import Events, Follower
from fastworker.function import AnyTaskFunction
from fastworker.handle import TaskHandle
from fastworker.legacy import LegacyCalls, call_options
from fastworker.lifecycle import State
from fastworker.live import Listening, Live
from fastworker.many import ManyTasks
from fastworker.middleware import Middleware, active_middleware, around_submit
from fastworker.options import SubmitOptions
from fastworker.orders import Orders, Request
from fastworker.pending import Pending
from fastworker.protocol import (
    MAX_PAYLOAD_BYTES,
    PROTOCOL_VERSION,
    Accepted,
    Answer,
    Changes,
    Duplicates,
    Ended,
    Hello,
    Message,
    Notes,
    Refused,
    Results,
    Submission,
    Submit,
    Watch,
    Welcome,
)
from fastworker.release import RELEASE
from fastworker.route import why_nobody
from fastworker.settings import load_settings
from fastworker.submission import submission_by_name
from fastworker.tasks import Priority
from fastworker.trace_context import carry_on

TASKS_PER_REQUEST = 5000
CHARACTERS_PER_REQUEST = 1024 * 1024
"""Escaped in a frame, and of four bytes each, they still stay below the limit of a frame."""


class Client(Orders, ManyTasks, ScheduleCalls, Events, Listening, LegacyCalls):
    """A connection to the control plane, for one event loop.

    Use it as `async with Client() as client:`, or call `start` and `stop`. While it is open, task functions that are
    submitted in the same event loop go through it.

    Args:
        url: where the control plane is; default: `FASTWORKER_URL`, then this user's socket on this host, then a
            search on the network. Several addresses of one control plane may stand with commas between them.
        key: the cluster key or a role's as text, where the address needs one.
        connect_timeout: seconds to look for the control plane; default 10.

    Attributes:
        insecure: the control plane listens without encryption too.
    """

    serves_task_functions = True
    """Whether task functions go through it; one that only looks on stands back."""

    def __init__(self, url: str | None = None, key: str | None = None, *, connect_timeout: float | None = None) -> None:
        self._settings = load_settings(connect_timeout=connect_timeout)
        self._places = candidates(url, self._settings)
        self._key = SecretStr(key) if key else None  # so that no traceback with its variables shows it
        self._requests = itertools.count(1)
        self._submits = Pending[Submit](self._settings.answer_timeout)
        self._asked = Pending[Request](self._settings.answer_timeout)
        self._instead: dict[int, dict[str, str]] = {}
        self._endings: weakref.WeakValueDictionary[str, Ending] = weakref.WeakValueDictionary()
        self._followers: list[Follower] = []
        self._live: dict[str, list[Live]] = {}
        self._connection: Connection | None = None
        self.insecure = False
        self._loop: asyncio.AbstractEventLoop | None = None

    # ---- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Find the control plane and connect.

        Raises:
            NoControlPlane: none answered; the message lists what was tried.
            Refused: it wants nothing to do with us.
        """
        if self._connection is not None:
            return self
        self._loop = asyncio.get_running_loop()
        url = ",".join(place for place, _ in self._places)
        credential = credential_for(url, self._settings, self._key)
        try:
            self._connection = await self._connect(url, credential)
        except TimeoutError:
            tried = await why_nobody(self._places, credential)
            raise NoControlPlane(
                f"no control plane was found; tried:\n{tried}\n"
                f"for {self._settings.connect_timeout:g} s. Start one: fastworker start"
            ) from None
        if self.serves_task_functions:
            current.opened(self)
        return self

    async def _connect(self, url: str, credential: Credential | None) -> Connection:
        connection = Connection(
            url,
            credential,
            hello=self._hello,
            on_message=self._received,
            on_welcome=self._welcomed,
        )
        await connection.open(self._settings.connect_timeout)
        return connection

    async def close(self) -> None:
        """Say goodbye and disconnect. Tasks that were submitted go on."""
        connection, self._connection = self._connection, None
        current.closed(self)
        if connection is not None:
            await connection.close()
        self._fail_all(ConnectionFailed("the client was stopped"))

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether the control plane is there now."""
        return self._connection is not None and self._connection.connected

    async def bridge[T](self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a call in the client's own event loop, from whichever loop this is."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return await call()

        async def run() -> T:
            return await call()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), self._loop))

    # ---- submit --------------------------------------------------------------------------------------------------

    async def submit(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        strict: bool = False,
        **said: Unpack[SubmitOptions],
    ) -> TaskHandle[Any]:
        """Queue a task by name, without its code; returns once it is stored.

        Args:
            name: the task name. If no worker knows it, the task waits for one that does.
            args: positional arguments.
            kwargs: keyword arguments.
            strict: refuse with `UnknownTask` if no connected worker knows the name.
            said: options of this submission; see `Options`.
        """
        submission = submission_by_name(name, args, kwargs or {}, **said)
        return await self.submit_function(None, submission, strict=strict)

    async def delay(
        self,
        name: str | AnyTaskFunction,
        *args: Any,
        priority: Priority | str | None = None,
        eta: datetime | float | None = None,
        countdown: float | None = None,
        **kwargs: Any,
    ) -> TaskHandle[Any]:
        """`submit` with the arguments written as in a call."""
        said = call_options(priority, eta, countdown)
        if not isinstance(name, str):
            function = name.options(**said)
            return await self.submit_function(function.signature, function.submission(args, kwargs))
        return await self.submit(name, args, kwargs, **said)

    async def submit_many(
        self, name: str, calls: Iterable[Sequence[Any]], *, strict: bool = False, **said: Unpack[SubmitOptions]
    ) -> list[TaskHandle[Any]]:
        """Queue one task per sequence of positional arguments.

        Args:
            strict: refuse with `UnknownTask` if no connected worker knows the name.
        """
        submissions = [submission_by_name(name, args, {}, **said) for args in calls]
        return await self.submit_functions(repeat(None), submissions, strict=strict)

    async def submit_function(
        self, signature: Signature | None, submission: Submission, *, strict: bool = False
    ) -> TaskHandle[Any]:
        """Queue a submission that is made already, and watch it."""
        submission.watch = True
        ending = self._ending(submission.id)
        instead = await self._submit([submission], strict)
        return self._handle_of(submission.id, instead, signature, ending)

    async def submit_functions(
        self,
        signatures: Iterable[Signature | None],
        submissions: Sequence[Submission],
        *,
        strict: bool = False,
        whole: bool = False,
    ) -> list[TaskHandle[Any]]:
        """Queue submissions that are made already, in as few requests as possible, and watch them.

        Args:
            signatures: one for each submission.
            whole: all or none: in one request, whatever their size.
        """
        for submission in submissions:
            submission.watch = True
        endings = [self._ending(submission.id) for submission in submissions]
        parts = [submissions] if whole else list(_requests(submissions))
        if whole and _size(submissions) > MAX_PAYLOAD_BYTES:
            raise PayloadTooLarge(f"{len(submissions)} tasks are more than fits in one request: submit them in parts")
        if len(parts) == 1:
            instead = [await self._submit(parts[0], strict)]
        else:
            instead = await asyncio.gather(*(self._submit(part, strict) for part in parts))
        others = {taken: other for part in instead for taken, other in part.items()} if any(instead) else {}
        return [
            self._handle_of(submission.id, others, signature, ending)
            for submission, signature, ending in zip(submissions, signatures, endings, strict=False)
        ]

    def _ending(self, task_id: str) -> Ending:
        ending = self._endings.get(task_id)
        if ending is None or ending.ended is not None:
            ending = self._endings[task_id] = Ending(task_id)
        return ending

    def _handle_of(
        self, task_id: str, others: dict[str, str], signature: Signature | None, ending: Ending
    ) -> TaskHandle[Any]:
        """The handle of a task that was submitted, or of the one that stands for it."""
        other = others.get(task_id)
        return TaskHandle.make(other or task_id, self, signature, ending if other is None else None)

    def _submit(self, submissions: Sequence[Submission], strict: bool) -> Awaitable[dict[str, str]]:
        """Submit in one request; the tasks that were not taken in, each with the one that stands for it."""
        carry_on(submissions)
        middleware = active_middleware()
        if middleware:
            return self._submit_through(middleware, submissions, strict)
        return self._send_submit(submissions, strict)

    async def _submit_through(
        self, middleware: Sequence[Middleware], submissions: Sequence[Submission], strict: bool
    ) -> dict[str, str]:
        instead: dict[str, str] = {}

        async def send(inner: Sequence[Submission]) -> None:
            instead.update(await self._send_submit(inner, strict))

        await around_submit(middleware, send)(submissions)
        return instead

    def _send_submit(self, submissions: Sequence[Submission], strict: bool) -> Awaitable[dict[str, str]]:
        connection, loop = self._open()
        message = Submit(next(self._requests), list(submissions), strict)
        connection.post(message, _size(submissions))
        return self._submits.add(message.request, message, loop)

    # ---- wait ----------------------------------------------------------------------------------------------------

    async def wait(self, task_id: str, timeout: float | None = None, ending: Ending | None = None) -> Ended:
        """Wait for the end of a task.

        Raises:
            ResultTimeout: `timeout` seconds have passed.
        """
        connection, _ = self._open()
        if ending is None:
            known = self._endings.get(task_id)
            if known is not None and known.ended is not None and known.ended.state is not State.SUCCEEDED:
                known = None  # it may have been requeued since, by itself or with one that it needs
            ending = known or Ending(task_id)
            if known is None:
                self._endings[task_id] = ending
                connection.post_item(Watch, task_id)
        if timeout is None:
            return await ending.wait()
        try:
            async with asyncio.timeout(timeout):
                return await ending.wait()
        except TimeoutError:
            raise ResultTimeout(f"task {task_id} has not ended within {timeout:g} s; it goes on") from None

    async def result(self, task_id: str, timeout: float | None = None) -> Any:
        """The result of a task, as plain JSON data. Raises what `TaskHandle.result` raises."""
        return await self.handle(task_id).result(timeout)

    def handle(self, task_id: str) -> TaskHandle[Any]:
        """A handle for a task that was submitted elsewhere."""
        return TaskHandle.make(task_id, self)

    # ---- ask ----------------------------------------------------------------------------------------------------

    def _listen(self, task_id: str) -> None:
        self._open()[0].post(Watch([task_id], live=True))

    async def _ask(self, request: Request) -> Any:
        return await self._ask_later(request)

    def _ask_later(self, request: Request) -> asyncio.Future[Any]:
        connection, loop = self._open()
        request = replace(request, request=next(self._requests))
        connection.post(request)
        return self._asked.add(request.request, request, loop)

    def _ended_anew(self, task_id: str) -> None:
        ending = self._endings.get(task_id)
        if ending is not None and ending.ended is not None:
            del self._endings[task_id]

    @property
    def started(self) -> bool:
        """Whether it was started, and not stopped."""
        return self._connection is not None

    # ---- the connection's side -----------------------------------------------------------------------------------

    def _open(self) -> tuple[Connection, asyncio.AbstractEventLoop]:
        if self._connection is None or self._loop is None:
            raise ConnectionFailed("the client is not started: use `async with Client() as client:` or `start()`")
        return self._connection, self._loop

    def _hello(self) -> Hello:
        return Hello("client", PROTOCOL_VERSION, _process_name(), platform.node(), os.getpid(), RELEASE)

    def _welcomed(self, welcome: Welcome) -> None:
        """A session has begun: say again what an earlier control plane may not have kept."""
        self.insecure = bool(welcome.insecure)
        if self._connection is None:
            return
        self._instead.clear()  # what stood for tasks may be lost, like them
        for message in self._submits:
            message.tasks = [replace(task, again=True) for task in message.tasks]
            self._connection.post(message, _size(message.tasks))
        for request in self._asked:
            self._connection.post(request)
        submitting = self._submitting()
        for ending in list(self._endings.values()):
            if ending.ended is None and ending.task_id not in submitting:
                self._connection.post_item(Watch, ending.task_id)
        self._follow_again()
        self._listen_again()

    def _submitting(self) -> set[str]:
        """The tasks whose submission is under way."""
        return {task.id for message in self._submits for task in message.tasks}

    def _received(self, message: Message) -> None:
        match message:
            case Accepted(items=requests):
                for request in requests:
                    self._submits.finish(request, self._instead.pop(request, {}))
            case Results(items=ends):
                for ended in ends:
                    ending = self._endings.get(ended.id)
                    too_early = ended.state is None and ended.id in self._submitting()
                    if ending is not None and not too_early:
                        ending.arrive(ended)
            case Notes(items=notes):
                self._noted(notes)
            case Answer(request=request, data=data):
                self._asked.finish(request, data)
            case Duplicates(request=request, instead=instead):
                self._instead[request] = instead
            case Changes(items=changes):
                self._changed(changes)
            case Refused(request=int() as request):
                error = refusal(message)
                self._submits.finish(request, error)
                self._asked.finish(request, error)
            case _:
                pass

    def _fail_all(self, error: ConnectionFailed) -> None:
        self._submits.fail_all(error)
        self._asked.fail_all(error)
        for ending in list(self._endings.values()):
            ending.fail(error)


def _size(submissions: Sequence[Submission]) -> int:
    """Roughly the characters of a request."""
    return sum(len(task.args) + 150 + (40 * len(task.ties.needs) if task.ties else 0) for task in submissions)


def _requests(submissions: Sequence[Submission]) -> Iterator[list[Submission]]:
    """The submissions in parts that fit a request each."""
    part: list[Submission] = []
    size = 0
    for submission in submissions:
        size += _size([submission])
        if part and (len(part) == TASKS_PER_REQUEST or size > CHARACTERS_PER_REQUEST):
            yield part
            part, size = [], _size([submission])
        part.append(submission)
    if part:
        yield part


def _process_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


async def _started_client() -> Client:
    return await Client().start()


current.provide(_started_client)
