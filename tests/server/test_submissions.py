"""Requests that must ask the store first, while others come."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, cast

from fastworker.protocol import PROTOCOL_VERSION, Hello, Submission, Submit
from fastworker.session import Session
from fastworker.tasks import new_task_id
from fastworker_server.clock import Clock
from fastworker_server.sessions import Peer, Sessions
from fastworker_server.submissions import Submissions
from fastworker_server.waiting import Waiting
from tests.server.stage import Stage


class Desk:
    """Takes requests in; its store, and the commits that wait for it, are this object."""

    failure: str | None = None

    def __init__(self, stage: Stage) -> None:
        self.accepted: list[int] = []
        self.asked: list[asyncio.Event] = []
        self.work: list[asyncio.Task[None]] = []
        sessions = Sessions(cast(Any, self), cast(Any, self), cast(Any, None))
        waiting = Waiting(stage.engine, cast(Any, self), sessions, Clock())
        here = cast(Any, self)
        self.submissions = Submissions(stage.engine, here, sessions, waiting, here, Clock(), self.spawn)
        self.peer = Peer(Session(), Hello("client", PROTOCOL_VERSION, "client"), "client")
        self.peer.pipe = 1

    def submit(self, request: int, task_id: str, now: float) -> None:
        """A request with one task that may have been submitted before."""
        self.submissions.submit(self.peer, Submit(request, [Submission(task_id, "add", "[]", again=True)]), now)

    def accept(self, peer: Peer, request: int) -> None:
        """A request was taken in."""
        self.accepted.append(request)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that takes a while."""
        self.work.append(asyncio.ensure_future(work))

    async def get_many(self, task_ids: Sequence[str]) -> dict[str, Any]:
        """What the store had when it was asked: nothing yet. It says so when the test lets it."""
        answer = asyncio.Event()
        self.asked.append(answer)
        await answer.wait()
        return {}


async def test_a_task_that_another_request_brought_while_the_store_was_asked_is_not_queued_again() -> None:
    """Even if it has ended and been forgotten meanwhile: what the store said is older."""
    stage = Stage()
    stage.join()
    desk = Desk(stage)
    task_id = new_task_id()
    desk.submit(1, task_id, stage.now)
    desk.submit(2, task_id, stage.now)
    await asyncio.sleep(0)  # both have asked
    desk.asked[0].set()
    await asyncio.wait([desk.work[0]])
    assert stage.started() == [task_id]
    stage.report(task_id)
    del stage.engine.ended[task_id]
    desk.asked[1].set()
    await asyncio.wait([desk.work[1]])
    assert desk.accepted == [1, 2]
    assert stage.engine.tasks == {}
    [watching] = desk.work[2:]  # its end, which is in the store
    watching.cancel()


async def test_a_task_that_was_stored_and_forgotten_while_the_store_was_asked_is_not_queued_again() -> None:
    stage = Stage()
    stage.join()
    desk = Desk(stage)
    task_id = new_task_id()
    stage.submit(task_id)
    stage.started()
    stage.report(task_id)
    desk.submit(1, task_id, stage.now)
    await asyncio.sleep(0)  # it has asked
    del stage.engine.ended[task_id]
    desk.asked[0].set()
    await asyncio.wait([desk.work[0]])
    assert desk.accepted == [1]
    assert stage.engine.tasks == {}
    [watching] = desk.work[1:]  # its end, which is in the store
    watching.cancel()
