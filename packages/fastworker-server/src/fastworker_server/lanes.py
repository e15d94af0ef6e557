"""Where queued tasks wait: lanes, and the routes that lead from lanes to workers.

A lane is the FIFO of the queued tasks of one (queue, task name), split by priority. A route is a set of workers and the
lanes that these, and only these, can serve. The next task of a route is the best head (priority, then order of
queueing) over its open lanes: O(log lanes), however many tasks are queued.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from fastworker.lifecycle import State
from fastworker.tasks import PRIORITIES, Task
from fastworker.views import LaneView
from fastworker_server.workers import AHEAD_SECONDS, WorkerRecord

LaneKey = tuple[str, str]
Place = tuple[int, int]
"""Rank and order: smaller is better."""


class Lane:
    """Queued tasks of one queue and name. Entries of tasks that have left stay in the heap until they come up."""

    __slots__ = ("_heap", "_totals", "counts", "held", "key", "offered", "route")

    def __init__(self, key: LaneKey, route: Route, totals: list[int]) -> None:
        self.key = key
        self.route = route
        self.held: str | None = None
        self.counts = [0] * len(PRIORITIES)
        self._totals = totals  # the same over all lanes
        self.offered: Place | None = None
        self._heap: list[tuple[int, int, Task]] = []

    def push(self, task: Task) -> None:
        """A task has been queued."""
        heapq.heappush(self._heap, (task.rank, task.order, task))
        self.counts[task.rank] += 1
        self._totals[task.rank] += 1
        if self._heap[0][2] is task:
            self.offer()

    def left(self, task: Task) -> None:
        """A task is queued no more, otherwise than by `take`."""
        self.counts[task.rank] -= 1
        self._totals[task.rank] -= 1
        if len(self._heap) > 1000 and len(self._heap) > 2 * len(self):
            self._heap = [entry for entry in self._heap if _is_waiting(entry)]
            heapq.heapify(self._heap)

    def head(self) -> tuple[int, int, Task] | None:
        """The best task with its place."""
        heap = self._heap
        while heap:
            if _is_waiting(heap[0]):
                return heap[0]
            heapq.heappop(heap)
        return None

    def take(self) -> Task:
        """Take the head out; `head` has just said that there is one."""
        task = heapq.heappop(self._heap)[2]
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
        place = (task.rank, task.order)
        return sum(1 for entry in self._heap if entry[:2] < place and _is_waiting(entry))

    def __len__(self) -> int:
        return sum(self.counts)

    def view(self) -> LaneView:
        """What the outside may know."""
        head = self.head()
        held = self.held or (None if self.route.workers else "no capable worker")
        queued = {str(priority): count for priority, count in zip(PRIORITIES, self.counts, strict=True) if count}
        return LaneView(self.key[0], self.key[1], queued, head[2].submitted_at if head else None, held)


def _is_waiting(entry: tuple[int, int, Task]) -> bool:
    _, order, task = entry
    return task.state is State.QUEUED and task.order == order


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

    def take(self) -> Task:
        """Take out the task that `best` has just named."""
        return heapq.heappop(self._heap)[3].take()

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

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, Lane] = {}
        self._routes: dict[tuple[str, ...], Route] = {(): Route(())}
        self._route_of_name: dict[str, Route] = {}
        self._workers: tuple[WorkerRecord, ...] = ()
        self.paused_queues: set[str] = set()
        self.paused_names: set[str] = set()
        self.totals = [0] * len(PRIORITIES)
        self._order = 0

    def enqueue(self, task: Task, *, again: bool = False) -> None:
        """Queue a task. `again`: it was given back, so it keeps its place."""
        if not again:
            self._order += 1
            task.order = self._order
        self.lane(task.queue, task.name).push(task)

    def lane(self, queue: str, name: str) -> Lane:
        """The lane of a queue and a name, made at first need."""
        key = (queue, name)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, self._route_for(name), self.totals)
            self._hold_or_open(lane)
        return lane

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

    def pause(self, queue: str | None, name: str | None) -> None:
        """Hold the lanes of a queue, of a name."""
        if queue is not None:
            self.paused_queues.add(queue)
        if name is not None:
            self.paused_names.add(name)
        self._review()

    def resume(self, queue: str | None, name: str | None) -> None:
        """Open them again."""
        self.paused_queues.discard(queue or "")
        self.paused_names.discard(name or "")
        self._review()

    def _review(self) -> None:
        for lane in self._lanes.values():
            self._hold_or_open(lane)

    def _hold_or_open(self, lane: Lane) -> None:
        queue, name = lane.key
        lane.held = "paused" if queue in self.paused_queues or name in self.paused_names else None
        lane.offer()

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
            capable = [worker for worker in self._workers if worker.slots and name in worker.names]
            serving = [worker for worker in capable if not worker.own] or capable
            key = tuple(worker.name for worker in serving)
            route = self._routes.setdefault(key, Route(serving))
            self._route_of_name[name] = route
        return route
