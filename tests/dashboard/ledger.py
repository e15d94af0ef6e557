"""What the tests know of their own tasks, beside which the dashboard's counts are held."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastworker.client import Client
from fastworker.portal import wait_for
from tests.support.cluster import Cluster
from tests.support.waiting import until

HELD = "held"
"""A queue that is paused: what is in there ends only by a cancellation, or by its expiry."""


class Ledger:
    """Submits tasks of all kinds, and writes down how each has to end.

    Attributes:
        states: how each task has to end, by id.
        names: its name, by id.
        submitted: when so many tasks had been acknowledged: the time and their number, in this order.
    """

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self.states: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.submitted: list[tuple[float, int]] = [(0.0, 0)]
        cluster.client.pause(queue=HELD)

    def by_state(self) -> dict[str, int]:
        """How many tasks there have to be in each state, once all have ended."""
        return dict(Counter(self.states.values()))

    def by_name(self, state: str) -> dict[str, int]:
        """The same for one state, by name."""
        return dict(Counter(self.names[task] for task, ended in self.states.items() if ended == state))

    def acknowledged_at(self, at: float) -> int:
        """How many tasks had been acknowledged by then."""
        return max(count for when, count in self.submitted if when <= at)

    def submitted_by(self, at: float) -> int:
        """How many tasks had been submitted by then: those that were acknowledged, and the next ones."""
        return min((count for when, count in self.submitted if when > at), default=len(self.states))

    def submit_some(self) -> None:
        """Submit a few tasks of some kind; returns once they are acknowledged."""
        client = self._cluster.client
        label = f"{len(self.states)}"
        kind = self._random.choice(("work", "work", "work", "nap", "fail", "flaky", "later", "cancelled", "expired"))
        match kind:
            case "work":
                self._note("work", "succeeded", client.submit_many("work", [(f"{label} {n}",) for n in range(25)]))
            case "nap":
                self._note("nap", "succeeded", client.submit_many("nap", [(0.02, f"{label} {n}") for n in range(4)]))
            case "fail":
                self._note("fail", "failed", client.submit_many("fail", [(f"{label} {n}",) for n in range(5)]))
            case "flaky":
                self._note("flaky", "succeeded", client.submit_many("flaky", [(2,)] * 2))
            case "later":
                self._note("add", "succeeded", client.submit_many("add", [(1, 2)] * 3, delay=0.05))
            case "cancelled":
                ids = client.submit_many("add", [(1, 2)] * 2, queue=HELD)
                self._note("add", "cancelled", ids)
                for task_id in ids:
                    client.cancel(task_id)
            case "expired":
                self._note("add", "expired", client.submit_many("add", [(1, 2)] * 2, queue=HELD, expires=0.05))

    def _note(self, name: str, ends: str, ids: Sequence[str]) -> None:
        for task_id in map(str, ids):
            self.states[task_id] = ends
            self.names[task_id] = name
        self.submitted.append((time.time(), len(self.states)))


class Load:
    """A ledger that grows all the time, until the end of the block."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "a submission never returned"
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._ledger.submit_some()
                self._stop.wait(0.01)
        except BaseException as error:
            self._failure = error


class Witness:
    """Counts every change by itself, from a moment on at which nothing moved.

    Args:
        states: of the tasks at that moment, by id.
    """

    def __init__(self, client: Client, states: dict[str, str]) -> None:
        self._client = client
        self._states = dict(states)
        self._counts = Counter(states.values())
        self._at: dict[int, dict[str, int]] = {}
        self._last = 0
        self._since: int | None = None
        self._following: asyncio.Task[None] | None = None
        wait_for(self._begin())

    async def _begin(self) -> None:
        self._following = asyncio.create_task(self._follow())
        await asyncio.sleep(0)
        self._last = (await self._client.stats()).version  # answered after the request to follow, which went first
        self._at[self._last] = dict(self._counts)

    async def _follow(self) -> None:
        async for change in self._client.events():
            before = self._states.get(change.id)
            if before is not None:
                self._counts[before] -= 1
            self._states[change.id] = change.state.value
            self._counts[change.state.value] += 1
            self._at[change.version] = dict(self._counts)
            self._last = change.version

    def at(self, version: int) -> dict[str, int]:
        """How many tasks there were in each state right after the move with this number."""
        until(lambda: self._last >= version, what=f"the move {version}")
        return {state: count for state, count in self._at[version].items() if count}

    def stop(self) -> None:
        """No more."""

        async def end() -> None:
            if self._following is not None:
                self._following.cancel()
                await asyncio.gather(self._following, return_exceptions=True)

        wait_for(end())


def without_zeros(counts: dict[str, Any]) -> dict[str, int]:
    """Only what there is."""
    return {name: int(count) for name, count in counts.items() if count}
