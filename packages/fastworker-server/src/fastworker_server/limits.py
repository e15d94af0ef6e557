"""Limits over the whole cluster: how many tasks of a name, and of a key, may start and run.

A limit never takes a worker's slot or a retry: it holds the lanes of its tasks until one more may start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Final, Protocol

from fastworker.limits import UNLIMITED, RateLimit, TaskLimits
from fastworker.tasks import Definition
from fastworker_server.timers import NEVER, Timer, Timers

GRAINS: Final = 1024
"""Parts of a period that starts are counted in: so many counters at most, and at most 1/1024 of it is not used."""
_SWEEP_FROM: Final = 1000

LimitKey = tuple[str, str]
"""Task name and key; the key is empty where tasks have none."""


class Held(Protocol):
    """What a limit holds: a lane."""

    def review(self) -> None:
        """The limit has closed or opened."""


class Window:
    """The starts of the last `rate.period` seconds: a sliding window, not a bucket that bursts at its edges.

    Starts that are close to each other share an entry `[first, last, count]` and leave together, `period` after the
    last of them. So there are never more than `rate.count` in any period, and entries stay few.
    """

    __slots__ = ("_count", "_entries", "rate")

    def __init__(self, rate: RateLimit, before: Iterable[tuple[float, float, int]] = ()) -> None:
        self.rate = rate
        self._entries = [list(entry) for entry in before]
        self._count = sum(int(entry[2]) for entry in self._entries)

    def free_at(self, now: float) -> float:
        """When one more may start; `now` or earlier if it may already."""
        entries, period = self._entries, self.rate.period
        gone = 0
        while gone < len(entries) and entries[gone][1] + period <= now:
            self._count -= int(entries[gone][2])
            gone += 1
        if gone:
            del entries[:gone]
        return now if self._count < self.rate.count else entries[0][1] + period

    def add(self, now: float) -> None:
        """One has started."""
        entries = self._entries
        self._count += 1
        if entries and now - entries[-1][0] < self.rate.period / GRAINS:
            entries[-1][1] = max(entries[-1][1], now)
            entries[-1][2] += 1
        else:
            entries.append([now, now, 1])

    def correct(self, counted: float, started: float) -> None:
        """One that was counted at the moment of its dispatch has really started a little later."""
        index = bisect_right(self._entries, counted, key=lambda entry: entry[0]) - 1
        if index >= 0:
            entry = self._entries[index]
            entry[1] = max(entry[1], min(started, counted + self.rate.period))

    def __iter__(self) -> Iterator[tuple[float, float, int]]:
        return iter((first, last, int(count)) for first, last, count in self._entries)


class Limit:
    """The limits of one name and key, and where they stand."""

    __slots__ = ("closed", "held_until", "key", "lanes", "limits", "running", "timer", "until", "windows")

    def __init__(self, key: LimitKey, limits: TaskLimits, running: int = 0) -> None:
        self.key = key
        self.limits = limits
        self.windows = [Window(rate) for rate in limits.rates]
        self.running = running
        self.held_until = 0.0  # a task has asked for it
        self.closed: str | None = None
        self.until: float | None = None  # when it opens again, if that is known
        self.timer: Timer | None = None
        self.lanes: dict[Held, None] = {}

    def started(self, now: float) -> None:
        """One has been started."""
        for window in self.windows:
            window.add(now)

    def correct(self, counted: float, started: float) -> None:
        """See `Window.correct`."""
        for window in self.windows:
            window.correct(counted, started)

    def blocked(self, now: float) -> tuple[str, float] | None:
        """Why no more may start, and until when (`NEVER`: until one ends)."""
        if self.held_until > now:
            return "held by a task", self.held_until
        most = self.limits.max_concurrency
        if most is not None and self.running >= most:
            return "concurrency limit", NEVER
        free_at = max((window.free_at(now) for window in self.windows), default=now)
        return ("rate limit", free_at) if free_at > now else None

    def is_idle(self, now: float) -> bool:
        """Whether nothing is lost if it is forgotten."""
        quiet = not any(window.free_at(now) > now or any(window) for window in self.windows)
        return quiet and not self.running and not self.lanes and self.held_until <= now

    def follow(self, before: Limit) -> None:
        """Take the place of a limit with other numbers: what has started counts on."""
        self.held_until = before.held_until
        longest = max(before.windows, key=lambda window: window.rate.period, default=None)
        if longest is not None:
            self.windows = [Window(rate, longest) for rate in self.limits.rates]
        self.lanes = before.lanes


class Limits:
    """All limits. What a client has set goes before what the task's definition says.

    Attributes:
        counted: by name, the longest period of its rates, and since when starts count.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._limits: dict[LimitKey, Limit] = {}
        self._defined: dict[str, TaskLimits] = {}
        self.set_by_client: dict[str, TaskLimits] = {}
        self.counted: dict[str, tuple[float, float]] = {}
        self._earlier: dict[str, list[tuple[str | None, float]]] = {}
        self._sweep_at = _SWEEP_FROM
        self.revision = 0
        self.holds_revision = 0

    # ---- what holds ----------------------------------------------------------------------------------------------

    def of(self, name: str) -> TaskLimits:
        """The limits that hold for a name."""
        said = self.set_by_client.get(name)
        return said if said is not None else self._defined.get(name, UNLIMITED)

    def all(self) -> dict[str, TaskLimits]:
        """The limits of all names that have some."""
        return {name: self.of(name) for name in sorted({*self._defined, *self.set_by_client}) if self.of(name)}

    def set(self, name: str, limits: TaskLimits | None) -> None:
        """Set the limits of a name, whatever its definition says; None: as its definition says."""
        if limits is None:
            self.set_by_client.pop(name, None)
        else:
            self.set_by_client[name] = limits
        self.revision += 1

    def define(self, definitions: Iterable[Definition]) -> list[str]:
        """Take in what a worker says; the names whose limits have changed."""
        changed = []
        for definition in definitions:
            before = self.of(definition.name)
            self._defined[definition.name] = definition.limits
            if self.of(definition.name) != before or (not before and definition.name in self.counted):
                self.revision += 1
                changed.append(definition.name)
        return changed

    def _count(self, name: str, now: float) -> None:
        """Starts from before the limits were changed count as far as the earlier limits looked back."""
        looked_back, since = self.counted.pop(name, (0.0, now))
        rates = self.of(name).rates
        if rates:
            self.counted[name] = (max(rate.period for rate in rates), max(since, now - looked_back))

    def change(self, running: Mapping[str, Mapping[str, int]], now: float) -> None:
        """The limits of some names have changed: those that stand follow.

        Args:
            running: the names, each with how many tasks run, by key.
        """
        old = {key: limit for key, limit in self._limits.items() if key[0] in running}
        for key in {*old, *((name, part) for name, counts in running.items() for part in counts)}:
            limit = Limit(key, self.of(key[0]), running[key[0]].get(key[1], 0))
            self._limits[key] = limit
            if key in old:
                limit.follow(old[key])
                self._timers.cancel(old[key].timer)
        for name in running:
            self._count(name, now)
            for part, started in self._earlier.pop(name, ()):
                if (counted := self.make(name, part, now)) is not None:
                    counted.started(started)
        for key, limit in self._limits.items():
            if key[0] in running:
                self.review(limit, now)

    def earlier(self, starts: Iterable[tuple[str, str | None, float]]) -> None:
        """What an earlier control plane has started: name, key, when. It counts as soon as the limits are known."""
        for name, key, started in sorted(starts, key=itemgetter(2)):
            self._earlier.setdefault(name, []).append((key, started))

    def get(self, name: str, key: str | None) -> Limit | None:
        """The limit, if it stands already."""
        return self._limits.get((name, key or "")) if self._limits else None

    def make(self, name: str, key: str | None, now: float) -> Limit | None:
        """The limit, made at first need; None if there is none."""
        limit = self.get(name, key)
        return self.add(name, key, now) if limit is None and self.of(name) else limit

    def add(self, name: str, key: str | None, now: float) -> Limit:
        """A new limit; without numbers, it can still be held."""
        self._sweep(now)
        limit = self._limits[name, key or ""] = Limit((name, key or ""), self.of(name))
        return limit

    def _sweep(self, now: float) -> None:
        if len(self._limits) >= self._sweep_at:
            self._limits = {key: limit for key, limit in self._limits.items() if not limit.is_idle(now)}
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self._limits))

    # ---- what happens --------------------------------------------------------------------------------------------

    def started(self, name: str, key: str | None, now: float) -> None:
        """A task has been started."""
        limit = self.get(name, key)
        if limit is not None:
            limit.running += 1
            limit.started(now)
            self.review(limit, now)

    def stopped(self, name: str, key: str | None, now: float) -> None:
        """A task runs no more."""
        limit = self.get(name, key)
        if limit is not None:
            limit.running -= 1
            self.review(limit, now)

    def hold(self, limit: Limit, until: float, now: float) -> None:
        """A task asks that none like it starts before that moment."""
        limit.held_until = max(limit.held_until, until)
        self.holds_revision += 1
        self.review(limit, now)

    def holds(self, now: float) -> list[tuple[str, str, float]]:
        """What tasks have asked for: name, key, until when."""
        return [(*key, limit.held_until) for key, limit in self._limits.items() if limit.held_until > now]

    def restore_holds(self, holds: Iterable[tuple[str, str, float]], now: float) -> None:
        """What tasks have asked an earlier control plane for goes on, as far as it lasts."""
        for name, key, until in holds:
            if until > now:
                self.hold(self.add(name, key, now), until, now)

    def review(self, limit: Limit, now: float) -> None:
        """Close or open the limit, and its lanes with it."""
        blocked = limit.blocked(now)
        closed, until = blocked if blocked is not None else (None, None)
        before, limit.closed = limit.closed, closed
        if until is None or until == NEVER or until != limit.until:
            self._timers.cancel(limit.timer)
            limit.timer = None
        limit.until = None if until == NEVER else until
        if limit.until is not None and limit.timer is None:
            limit.timer = self._timers.at(limit.until, self.review, limit)
        if closed != before:
            for lane in limit.lanes:
                lane.review()
