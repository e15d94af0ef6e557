"""Who waits for what: for the end of a task, for the answer to a cancellation, for every move."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from fastworker.lifecycle import TERMINAL, State
from fastworker.protocol import Answer, Change, Changes, Ended, Note, Notes, Results
from fastworker.tasks import Task
from fastworker_server.answers import ended_of
from fastworker_server.clock import Clock
from fastworker_server.engine import Engine
from fastworker_server.queue import Moved
from fastworker_server.sessions import Peer, Sessions
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.streams import Streams

MOST_BEHIND: Final = 100
"""Messages that wait for a reader, before it misses what tasks say; and before who follows all moves is given up."""
NO_MORE: Final = 2**53
"""Number of the first part that is kept, where none is."""

REMEMBERED_CHANGES: Final = 20_000
RECORD_FOR: Final = 60.0
"""Seconds that changes are remembered for a follower that is gone."""


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
        self._recent: deque[Change] = deque(maxlen=REMEMBERED_CHANGES)
        self._all_since = engine.version
        self._record_until = 0.0
        self._listeners: dict[str, list[Peer]] = {}
        self._streams = Streams()

    def tell(self, moves: Sequence[Moved]) -> None:
        """Tell everybody who waits for these moves."""
        for moved in moves:
            if moved.after in TERMINAL and moved.task.state in TERMINAL:  # else it was requeued in the same turn
                self._ended(moved.task)
        if self._followers or self._clock.now() < self._record_until:
            changes = [_change(moved) for moved in moves]
            self._recent.extend(changes)
            for peer in [peer for peer in self._followers if peer.session.backlog > MOST_BEHIND]:
                self._sessions.give_up(peer)
            for peer in self._followers:
                for change in changes:
                    self._sessions.say_item(peer, Changes, change)
        elif moves:
            self._recent.clear()
            self._all_since = moves[-1].version

    def _ended(self, task: Task) -> None:
        self._listeners.pop(task.id, None)
        watching = self._watchers.pop(task.id, None)
        if isinstance(watching, Peer):
            self._send_end(watching, task)
        elif watching is not None:
            for peer in watching:
                self._send_end(peer, task)
        if self._cancels:
            self.answer_cancels(task.id, task.stopped_by if task.state is State.CANCELLED else "already_done")

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

    # ---- what running tasks say ----------------------------------------------------------------------------------

    def listen(self, peer: Peer, task_id: str) -> None:
        """Send what is known of a task that says something, and from now on what it says."""
        notes = self._streams.notes(task_id)
        task = self._engine.tasks.get(task_id)
        if task is not None:
            listeners = self._listeners.setdefault(task_id, [])
            listeners.extend([] if peer in listeners else [peer])
            said = Note(task_id, task.attempt, task.progress, task.log or [], sealed_progress=task.sealed_progress)
            if said != Note(task_id, task.attempt):
                self._send_note(peer, said)
        elif not notes:
            notes = [Note(task_id, 0, first=NO_MORE)]
        for note in [*notes, Note(task_id, 0)]:  # an empty one at last: that was all so far
            self._send_note(peer, note)

    def tell_note(self, note: Note) -> None:
        """A task has said something. Those who read too slowly miss it."""
        if note.first is not None:
            self._streams.add(note)
        for peer in self._listeners.get(note.id, ()):
            if peer.session.backlog < MOST_BEHIND:
                self._send_note(peer, note)

    def _send_note(self, peer: Peer, note: Note) -> None:
        self._sessions.say_item(peer, Notes, note, 100 + sum(map(len, note.log)) + sum(map(len, note.parts)))

    def stop_listening(self, peer: Peer) -> None:
        """Its session is over."""
        for listeners in self._listeners.values():
            if peer in listeners:
                listeners.remove(peer)

    # ---- cancellations -------------------------------------------------------------------------------------------

    def await_cancel(self, peer: Peer, request: int, task_id: str) -> None:
        """The task runs: its worker's report will say what became of the cancellation."""
        self._cancels.setdefault(task_id, []).append((peer, request))

    def answer_cancels(self, task_id: str, answer: str) -> None:
        """What became of it."""
        for peer, request in self._cancels.pop(task_id, ()):
            self._sessions.say(peer, Answer(request, answer))

    # ---- followers -----------------------------------------------------------------------------------------------

    def follow(self, peer: Peer, after: int | None) -> int | None:
        """Tell this peer every move from now on, or from after the move with this number on.

        Returns:
            The number of the last move until now; None if some of these are not known any more.
        """
        if peer not in self._followers:
            self._followers.append(peer)
        if after is None:
            return self._engine.version
        oldest = self._recent[0].version - 1 if len(self._recent) == REMEMBERED_CHANGES else self._all_since
        for change in self._recent:
            if change.version > after:
                self._sessions.say_item(peer, Changes, change)
        return self._engine.version if after >= oldest else None

    def unfollow(self, peer: Peer) -> None:
        """No more."""
        if peer in self._followers:
            self._followers.remove(peer)
            self._record_until = self._clock.now() + RECORD_FOR


def _change(moved: Moved) -> Change:
    task = moved.task
    return Change(moved.version, task.id, task.name, moved.after, task.attempt, moved.at)
