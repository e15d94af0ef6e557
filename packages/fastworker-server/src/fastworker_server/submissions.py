"""Submit requests: all tasks of one are taken in, or none."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from fastworker.protocol import Duplicates, RefusalCode, Refused, Submission, Submit
from fastworker.tasks import OnDuplicate, is_idempotent_id, is_task_id
from fastworker_server.clock import Clock
from fastworker_server.engine import Engine
from fastworker_server.needed import remember_needed
from fastworker_server.pump import Pump
from fastworker_server.sessions import Peer, Sessions
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.waiting import Waiting

LONGEST_NAME: Final = 200


@dataclass(slots=True, eq=False)
class _LookUp:
    """While the store is asked for tasks, other requests may bring the same, and these even end and be forgotten."""

    asked: frozenset[str]
    known: set[str] = field(default_factory=set)

    def taken_in(self, task_id: str) -> None:
        """Another request has brought this one."""
        if task_id in self.asked:
            self.known.add(task_id)

    def new(self, submissions: Iterable[Submission]) -> list[Submission]:
        """Those of the submissions that are not known."""
        return [submission for submission in submissions if submission.id not in self.known]


class Submissions:
    """Takes submit requests in.

    Args:
        spawn: does something beside the other messages, then pumps.
    """

    def __init__(
        self,
        engine: Engine,
        store: SqliteStore,
        sessions: Sessions,
        waiting: Waiting,
        pump: Pump,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._engine = engine
        self._store = store
        self._sessions = sessions
        self._waiting = waiting
        self._pump = pump
        self._clock = clock
        self._spawn = spawn
        self._lookups: list[_LookUp] = []

    def submit(self, peer: Peer, message: Submit, now: float) -> None:
        """A request has come."""
        refusal = self._reason_to_refuse(message)
        if refusal is not None:
            self._sessions.say(peer, Refused(*refusal, message.request))
            return
        again = [task.id for task in message.tasks if task.again and task.id not in self._engine.tasks]
        if again or self._needed_elsewhere(message.tasks):
            self._spawn(self._look_up(peer, message, again))
        else:
            self._take_in(peer, message, now)

    def watch(self, peer: Peer, task_ids: Iterable[str]) -> None:
        """Send the ends of these tasks."""
        elsewhere = self._waiting.watch(peer, task_ids)
        if elsewhere:
            self._spawn(self._waiting.watch_stored(peer, elsewhere))

    # ---- checks --------------------------------------------------------------------------------------------------

    def _reason_to_refuse(self, message: Submit) -> tuple[RefusalCode, str] | None:
        if self._store.failure is not None:
            return "failed", self._store.failure
        for task in message.tasks:
            if not is_task_id(task.id):
                return "malformed", f"{task.id!r} is not a task id: use a UUID"
            if not task.name or len(task.name) > LONGEST_NAME:
                return "malformed", f"a task name has 1 to {LONGEST_NAME} characters"
        if message.strict:
            names = {task.name for task in message.tasks}
            unknown = sorted(name for name in names if not self._engine.has_worker_for(name))
            if unknown:
                return "unknown-task", f"no connected worker knows {', '.join(map(repr, unknown))}"
        return None

    def _needed_elsewhere(self, submissions: Iterable[Submission]) -> list[str]:
        """The needed tasks that are neither in memory nor earlier in the request. So no circle can ever be taken in."""
        here: set[str] = set()
        missing: dict[str, None] = {}
        for submission in submissions:
            if submission.ties is not None:
                for need in submission.ties.needs:
                    if need not in here and not self._engine.knows(need):
                        missing[need] = None
            here.add(submission.id)
        return list(missing)

    async def _look_up(self, peer: Peer, message: Submit, again: list[str]) -> None:
        """Tasks of a request that may have been taken in before, and needed ones that have ended: the store knows."""
        lookup = _LookUp(frozenset(again))
        self._lookups.append(lookup)
        remembered = {task_id: self._engine.ended[task_id] for task_id in again if task_id in self._engine.ended}
        try:
            for task_id, found in {**remembered, **await self._store.get_many(again)}.items():
                if found != "expired" or not is_idempotent_id(task_id):
                    lookup.known.add(task_id)
            await remember_needed(self._engine, self._store, lambda: self._needed_elsewhere(lookup.new(message.tasks)))
        finally:
            self._lookups.remove(lookup)
        message.tasks = lookup.new(message.tasks)
        unknown = self._needed_elsewhere(message.tasks)
        if unknown:
            text = (
                f"{unknown[0]} is needed, but not known: it is kept no longer, of another control plane, or comes later"
            )
            self._sessions.say(peer, Refused("unknown-dependency", text, message.request))
            return
        self._take_in(peer, message, self._clock.now())
        self.watch(peer, lookup.known)

    # ---- take in -------------------------------------------------------------------------------------------------

    def _take_in(self, peer: Peer, message: Submit, now: float) -> None:
        duplicates = self._engine.duplicates(message.tasks, now)
        left_out = {task.id for task in message.tasks if task.id in duplicates and _policy(task) != "replace"}
        for task in message.tasks if left_out else ():
            rejected = task.id in left_out and _policy(task) == "reject"
            if rejected or (task.ties is not None and not left_out.isdisjoint(task.ties.needs)):
                text = f"{task.name} is, or needs, a task that is unique, and another one is there already"
                self._sessions.say(peer, Refused("duplicate", text, message.request))
                return
        for submission in message.tasks:
            if submission.id in duplicates and submission.id not in left_out:
                self._engine.replace(duplicates[submission.id], now)
            if submission.id not in left_out:
                self._submit_one(peer, submission, now)
        if left_out:
            self._sessions.say(peer, Duplicates(message.request, {left: duplicates[left] for left in left_out}))
        self._pump.accept(peer, message.request)

    def _submit_one(self, peer: Peer, submission: Submission, now: float) -> None:
        for lookup in self._lookups:
            lookup.taken_in(submission.id)
        new = self._engine.submit(submission, now) is not None
        if submission.watch and new and submission.id in self._engine.tasks:
            self._waiting.watch_new(peer, submission.id)
        elif submission.watch:
            self.watch(peer, [submission.id])


def _policy(submission: Submission) -> OnDuplicate:
    return submission.ties.on_duplicate if submission.ties is not None else "return_existing"
