"""Where queued tasks wait: lanes, and the routes that lead from lanes to workers.

A lane holds the queued tasks of one (queue, task name, limit key), by priority, then by turn: first in, first out where
nobody has a fair key. A route is a set of workers and the lanes that these, and only these, can serve. The next task of
a route is the best head over its open lanes: O(log lanes), however many tasks are queued.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Iterator
from typing import Final

from fastworker.activity import Pause, PausedKind
from fastworker.lifecycle import State
from fastworker.tasks import PRIORITIES, Task
from fastworker.views import LaneView
from fastworker_server.limits import Limit, Limits
from fastworker_server.turns import AHEAD, Turns
from fastworker_server.workers import AHEAD_SECONDS, WorkerRecord

LaneKey = tuple[str, str, str]
"""Queue, task name, and limit key; the last is empty where tasks have none."""
Place = tuple[int, int]
"""Rank and number of the turn: smaller is better."""
Entry = tuple[int, int, int, Task]
"""Rank, number, the negative sequence number (of two with the same number, the later fair key is next), task."""
_SWEEP_FROM: Final = 1000


class Lane:
    """Queued tasks. Entries of tasks that have left stay in the heap until they come up."""

    __slots__ = ("_heap", "_totals", "counts", "held", "key", "limit", "offered", "paused", "route", "served")

    def __init__(self, key: LaneKey, route: Route, totals: list[int]) -> None:
        self.key = key
        self.route = route
        self.paused = False
        self.limit: Limit | None = None
        self.held: str | None = None
        self.counts = [0] * len(PRIORITIES)
        self.served = [0] * len(PRIORITIES)  # by rank: the number of the last turn, since tasks queue here
        self._totals = totals  # the same over all lanes
        self.offered: Place | None = None
        self._heap: list[Entry] = []

    def push(self, task: Task) -> None:
        """A task has been queued."""
        heapq.heappush(self._heap, (task.rank, task.order, -task.seq, task))
        self.counts[task.rank] += 1
        self._totals[task.rank] += 1
        if self._heap[0][3] is task:
            self.offer()

    def left(self, task: Task) -> None:
        """A task is queued no more, otherwise than by `take`."""
        self.counts[task.rank] -= 1
        self._totals[task.rank] -= 1
        if len(self._heap) > 1000 and len(self._heap) > 2 * len(self):
            self._heap = [entry for entry in self._heap if self._is_here(entry)]
            heapq.heapify(self._heap)

    def head(self) -> Entry | None:
        """The best task with its place."""
        heap = self._heap
        while heap:
            if self._is_here(heap[0]):
                return heap[0]
            heapq.heappop(heap)
        return None

    def take(self) -> Task:
        """Take the head out; `head` has just said that there is one."""
        task = heapq.heappop(self._heap)[3]
        self.counts[task.rank] -= 1
        self._totals[task.rank] -= 1
        self.offer()
        return task

    def offer(self) -> None:
        """Stand with the route's other lanes by the present head."""
        head = self.head()
        if head is not None and self.held is None:
            self.offered = head[:2]
            self.route.offer(head[0], head[1], self)

    def before(self, task: Task) -> int:
        """How many tasks of this lane go before this one."""
        place = (task.rank, task.order, -task.seq)
        return sum(1 for entry in self._heap if entry[:3] < place and self._is_here(entry))

    def _is_here(self, entry: Entry) -> bool:
        """Whether the task still waits in this place, and not in another rank, lane or turn meanwhile."""
        rank, order, _, task = entry
        return task.state is State.QUEUED and task.order == order and task.rank == rank and task.queue == self.key[0]

    def review(self) -> None:
        """Hold or open: by a pause, by its limit."""
        self.held = "paused" if self.paused else self.limit.closed if self.limit is not None else None
        self.offer()

    def __len__(self) -> int:
        return sum(self.counts)

    def oldest(self) -> float | None:
        """When its head was submitted."""
        head = self.head()
        return head[3].submitted_at if head else None

    def view(self) -> LaneView:
        """What the outside may know."""
        held = self.held or (None if self.route.workers else "no capable worker")
        queued = {str(priority): count for priority, count in zip(PRIORITIES, self.counts, strict=True) if count}
        return LaneView(
            queue=self.key[0],
            name=self.key[1],
            queued=queued,
            oldest=self.oldest(),
            held=held,
            key=self.key[2] or None,
            held_until=self.limit.until if self.limit is not None and held == self.limit.closed else None,
            running=self.limit.running if self.limit is not None else None,
        )


class Route:
    """Some workers, and the lanes that they serve."""

    __slots__ = ("_heap", "workers")

    def __init__(self, workers: Iterable[WorkerRecord]) -> None:
        self.workers = tuple(workers)
        self._heap: list[tuple[int, int, LaneKey, Lane]] = []

    def offer(self, rank: int, order: int, lane: Lane) -> None:
        """A lane has this head. What was offered before and no longer holds is dropped when it comes up."""
        heapq.heappush(self._heap, (rank, order, lane.key, lane))

    def best(self) -> tuple[int, int, Lane] | None:
        """The best head of the open lanes."""
        heap = self._heap
        while heap:
            rank, order, _, lane = heap[0]
            head = lane.head() if lane.held is None and lane.route is self else None
            if head is not None and head[0] == rank and head[1] == order:
                return rank, order, lane
            heapq.heappop(heap)
            if head is not None and lane.offered == (rank, order):
                lane.offer()  # its head has left otherwise than by `take`: the next one stands for it now
        return None

    def take(self) -> Lane:
        """Take out the lane that `best` has just named; its head is to be taken at once."""
        return heapq.heappop(self._heap)[3]

    def least_loaded(self, rank: int, estimate: float | None) -> WorkerRecord | None:
        """The worker for a task of this priority: the one with the fewest tasks per slot that has room.

        Args:
            estimate: how long the task runs; None if it must not go ahead, only into a free slot.
        """
        best = None
        for worker in self.workers:
            if worker.usable and worker.has_room(rank, estimate) and (best is None or worker.load < best.load):
                best = worker
        return best

    def enough(self, estimate: float) -> float:
        """How many tasks of that length keep all workers busy for as long as work may wait ahead at one of them."""
        return sum(worker.slots for worker in self.workers) * (1.0 + AHEAD_SECONDS / max(estimate, 1e-6))


class Lanes:
    """All lanes, and the routes between them and the workers."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lanes: dict[LaneKey, Lane] = {}
        self._routes: dict[tuple[str, ...], Route] = {(): Route(())}
        self._route_of_name: dict[str, Route] = {}
        self._workers: tuple[WorkerRecord, ...] = ()
        self._turns = Turns()
        self._sweep_at = _SWEEP_FROM
        self.revision = 0  # of what is paused
        self.pauses: dict[tuple[PausedKind, str], Pause] = {}
        self.totals = [0] * len(PRIORITIES)

    def enqueue(self, task: Task, now: float, *, again: bool = False) -> None:
        """Queue a task. `again`: it was given back, so it keeps its place."""
        lane = self.lane(task, now)
        if not lane.counts[task.rank]:
            lane.served[task.rank] = self._turns.served(task.rank)
        if not again:
            task.order = self._turns.number(task.rank, task.ties.fair_key, lane.served[task.rank])
        lane.push(task)
        if self._turns.is_crowded(task.rank):
            self._sweep_turns(task.rank)

    def _sweep_turns(self, rank: int) -> None:
        """Forget fair keys. The numbers move on, so that no forgotten key gets a turn twice."""
        lanes = [lane for lane in self._lanes.values() if lane.counts[rank]]
        self._turns.sweep(rank, min(lane.served[rank] for lane in lanes))
        for lane in lanes:
            lane.served[rank] += 1 + AHEAD

    def take(self, route: Route) -> Task:
        """Take out the task that `route.best` has just named."""
        lane = route.take()
        task = lane.take()
        lane.served[task.rank] = max(lane.served[task.rank], task.order)
        self._turns.serve(task.rank, task.order)
        return task

    def lane(self, task: Task, now: float) -> Lane:
        """The lane of a task, made at first need."""
        key = (task.queue, task.name, task.ties.key or "")
        lane = self._lanes.get(key)
        if lane is None:
            self._sweep()
            lane = self._lanes[key] = Lane(key, self._route_for(task.name), self.totals)
            lane.paused = self._is_paused(lane)
            self._bind(lane, self._limits.make(task.name, task.ties.key, now))
        return lane

    def _bind(self, lane: Lane, limit: Limit | None) -> None:
        lane.limit = limit
        if limit is not None:
            limit.lanes[lane] = None
        lane.review()

    def bind(self, names: Container[str], now: float) -> None:
        """The limits of these names have changed: their lanes get those that stand now."""
        for lane in self._lanes.values():
            if lane.key[1] in names:
                self._bind(lane, self._limits.make(lane.key[1], lane.key[2], now))

    def _sweep(self) -> None:
        """Drop empty lanes of keys: there may be one key for every user there ever was."""
        if len(self._lanes) < self._sweep_at:
            return
        for key, lane in list(self._lanes.items()):
            if key[2] and not len(lane):
                del self._lanes[key]
                if lane.limit is not None:
                    lane.limit.lanes.pop(lane, None)
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._lanes))

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def routes(self) -> Iterable[Route]:
        """All routes that lead to a worker."""
        return [route for route in self._routes.values() if route.workers]

    def queued(self, rank: int) -> int:
        """How many tasks of this priority are queued."""
        return self.totals[rank]

    def may_go_ahead(self, route: Route, rank: int, estimate: float) -> bool:
        """Whether a task may wait at a worker, without being overtaken by a worse one that another worker starts.

        It may while there is enough of its kind, or nothing worse, to keep the others busy meanwhile.
        """
        if len(route.workers) == 1 or not any(self.totals[rank + 1 :]):
            return True
        return sum(self.totals[: rank + 1]) > route.enough(estimate)

    # ---- pause ---------------------------------------------------------------------------------------------------

    def pause(self, queue: str | None, name: str | None, by: str = "", now: float = 0.0) -> None:
        """Hold the lanes of a queue, of a name. What is paused already stays paused by whom it was."""
        if queue is not None:
            self.pauses.setdefault(("queue", queue), Pause("queue", queue, by, now))
        if name is not None:
            self.pauses.setdefault(("name", name), Pause("name", name, by, now))
        self._review()

    def resume(self, queue: str | None, name: str | None) -> None:
        """Open them again."""
        self.pauses.pop(("queue", queue or ""), None)
        self.pauses.pop(("name", name or ""), None)
        self._review()

    @property
    def paused_queues(self) -> set[str]:
        """The queues that are paused."""
        return {target for what, target in self.pauses if what == "queue"}

    @property
    def paused_names(self) -> set[str]:
        """The task names that are paused."""
        return {target for what, target in self.pauses if what == "name"}

    def _review(self) -> None:
        self.revision += 1
        for lane in self._lanes.values():
            lane.paused = self._is_paused(lane)
            lane.review()

    def _is_paused(self, lane: Lane) -> bool:
        return ("queue", lane.key[0]) in self.pauses or ("name", lane.key[1]) in self.pauses

    # ---- routes --------------------------------------------------------------------------------------------------

    def reroute(self, workers: Iterable[WorkerRecord]) -> None:
        """The workers have changed: lead every lane to those that can serve it now.

        A worker of the control plane's own serves a name only while no other worker can.
        """
        self._workers = tuple(workers)
        self._routes = {(): Route(())}
        self._route_of_name = {}
        for lane in self._lanes.values():
            lane.route = self._route_for(lane.key[1])
            lane.offer()

    def _route_for(self, name: str) -> Route:
        route = self._route_of_name.get(name)
        if route is None:
            capable = [
                worker for worker in self._workers if worker.slots and not worker.paused and name in worker.names
            ]
            serving = [worker for worker in capable if not worker.own] or capable
            key = tuple(worker.name for worker in serving)
            route = self._routes.setdefault(key, Route(serving))
            self._route_of_name[name] = route
        return route
