"""Who waits for what: for the end of a task, for the answer to a cancellation, for every move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastworker.lifecycle import TERMINAL, State
from fastworker.protocol import Answer, Change, Changes, Ended, Results
from fastworker.tasks import Task
from fastworker_server.answers import ended_of
from fastworker_server.clock import Clock
from fastworker_server.engine import Engine, Moved
from fastworker_server.sessions import Peer, Sessions
from fastworker_server.storage.sqlite import SqliteStore


class Waiting:
    """Everybody who waits, and what they are told."""

    def __init__(self, engine: Engine, store: SqliteStore, sessions: Sessions, clock: Clock) -> None:
        self._engine = engine
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._watchers: dict[str, Peer | list[Peer]] = {}
        self._cancels: dict[str, list[tuple[Peer, int]]] = {}
        self._followers: list[Peer] = []

    def tell(self, moves: Sequence[Moved]) -> None:
        """Tell everybody who waits for these moves."""
        for moved in moves:
            if moved.after in TERMINAL and moved.task.state in TERMINAL:  # else it was requeued in the same turn
                self._ended(moved.task)
        for peer in self._followers:
            for moved in moves:
                self._sessions.say_item(peer, Changes, _change(moved))

    def _ended(self, task: Task) -> None:
        watching = self._watchers.pop(task.id, None)
        if isinstance(watching, Peer):
            self._send_end(watching, task)
        elif watching is not None:
            for peer in watching:
                self._send_end(peer, task)
        if self._cancels:
            self.answer_cancels(task.id, "interrupted" if task.state is State.CANCELLED else "already_done")

    # ---- the end of a task ---------------------------------------------------------------------------------------

    def watch(self, peer: Peer, task_ids: Iterable[str]) -> list[str]:
        """Send the ends of these tasks: those that have ended now, the others when they do.

        Returns:
            Those that only the store may know, for `watch_stored`.
        """
        elsewhere = []
        for task_id in task_ids:
            if task_id in self._engine.tasks:
                self._add_watcher(peer, task_id)
            elif task_id in self._engine.ended:
                self._send_end(peer, self._engine.ended[task_id])
            else:
                elsewhere.append(task_id)
        return elsewhere

    def watch_new(self, peer: Peer, task_id: str) -> None:
        """`watch` for a task that has just been taken in."""
        self._watchers[task_id] = peer

    async def watch_stored(self, peer: Peer, task_ids: list[str]) -> None:
        """`watch` for tasks that are not in memory."""
        found = await self._store.get_many(task_ids)
        for task_id in self.watch(peer, task_ids):  # some may have been taken in, or requeued, meanwhile
            match found.get(task_id):
                case Task() as task:
                    self._send_end(peer, task)
                case "expired":
                    self._sessions.say_item(peer, Results, Ended(task_id, State.SUCCEEDED, result_expired=True))
                case _:
                    self._sessions.say_item(peer, Results, Ended(task_id, None))

    def _add_watcher(self, peer: Peer, task_id: str) -> None:
        watching = self._watchers.get(task_id)
        if watching is None:
            self._watchers[task_id] = peer
        elif isinstance(watching, Peer):
            if watching is not peer:
                self._watchers[task_id] = [watching, peer]
        elif peer not in watching:
            watching.append(peer)

    def _send_end(self, peer: Peer, task: Task) -> None:
        ended = ended_of(task, self._clock.now())
        self._sessions.say_item(peer, Results, ended, 100 + len(ended.result or ""))

    # ---- cancellations -------------------------------------------------------------------------------------------

    def await_cancel(self, peer: Peer, request: int, task_id: str) -> None:
        """The task runs: its worker's report will say what became of the cancellation."""
        self._cancels.setdefault(task_id, []).append((peer, request))

    def answer_cancels(self, task_id: str, answer: str) -> None:
        """What became of it."""
        for peer, request in self._cancels.pop(task_id, ()):
            self._sessions.say(peer, Answer(request, answer))

    # ---- followers -----------------------------------------------------------------------------------------------

    def follow(self, peer: Peer) -> None:
        """Tell this peer every move from now on."""
        if peer not in self._followers:
            self._followers.append(peer)

    def unfollow(self, peer: Peer) -> None:
        """No more."""
        if peer in self._followers:
            self._followers.remove(peer)


def _change(moved: Moved) -> Change:
    task = moved.task
    return Change(moved.version, task.id, task.name, moved.after, task.attempt, moved.at)
