"""What is measured, and how: the same code for every contender, run inside the contender's own environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import quantiles

from benchmarks import tally
from benchmarks.contender import Contender
from benchmarks.processes import resident_bytes

type Figures = dict[str, float]

_WARM_UP_SECONDS = 1.0
_WARM_UP_TASKS = 200


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a scenario: a row of the table."""

    name: str
    unit: str
    more_is_better: bool = True


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way of using a task queue, and how many tasks (or round trips) it takes in a quick and in a full run."""

    run: Callable[[Contender, int], Figures]
    measures: tuple[Measure, ...]
    quick: int
    full: int
    results: bool = False
    repeatable: bool = True
    """Whether repeating it in one run tells anything new."""


def end_to_end(contender: Contender, size: int) -> Figures:
    """Tasks per second from the first submit of one client until all are known to have finished, workers warm."""
    _start_warm(contender)
    began = time.monotonic()
    contender.run_to_end(size)
    return {"end_to_end": size / (time.monotonic() - began)}


def drain(contender: Contender, size: int) -> Figures:
    """Tasks per second between the first and the last task finished, of a queue filled before any worker started."""
    contender.start_server()
    contender.connect()
    contender.submit_bulk(size)
    contender.start_workers()
    done = tally.wait_for(contender.job.tally_folder, size)
    return {"drain": (size - 1) / (done.last - done.first)}


def submit_one_by_one(contender: Contender, size: int) -> Figures:
    """Tasks per second that one client can submit with a call each, no worker running."""
    return {"submit_one_by_one": _submit_rate(contender, contender.submit_one_by_one, size)}


def submit_bulk(contender: Contender, size: int) -> Figures:
    """Tasks per second that one client can submit in the fastest way it has, no worker running."""
    return {"submit_bulk": _submit_rate(contender, contender.submit_bulk, size)}


def round_trip(contender: Contender, size: int) -> Figures:
    """Milliseconds from submit to the result in the client's hands, one after the other, system idle otherwise."""
    _start_warm(contender)
    contender.round_trips(20)
    cuts = quantiles(contender.round_trips(size), n=100, method="inclusive")
    return {f"round_trip_p{p}": cuts[p - 1] * 1000 for p in (50, 95, 99)}


def start_to_first_task(contender: Contender, size: int) -> Figures:
    """Seconds from launching server and workers until the client, already loaded, has the first task's result."""
    began = time.monotonic()
    contender.start_server()
    contender.start_workers()
    contender.connect()
    contender.round_trips(size)
    return {"start_to_first_task": time.monotonic() - began}


def memory_per_100k_queued(contender: Contender, size: int) -> Figures:
    """Megabytes by which the process that holds the queue grows per 100,000 queued no-op tasks."""
    server = contender.start_server()
    contender.connect()
    contender.submit_bulk(_WARM_UP_TASKS)
    before = resident_bytes(server)
    contender.submit_bulk(size)
    return {"memory_per_100k_queued": (resident_bytes(server) - before) / size * 100_000 / 1e6}


def _start_warm(contender: Contender) -> None:
    """Server, workers and client up, and tasks flowing for a second so that every worker process has loaded."""
    contender.start_server()
    contender.start_workers()
    contender.connect()
    contender.run_to_end(_WARM_UP_TASKS)
    began = time.monotonic()
    while time.monotonic() - began < _WARM_UP_SECONDS:
        contender.run_to_end(_WARM_UP_TASKS)


def _submit_rate(contender: Contender, submit: Callable[[int], None], size: int) -> float:
    contender.start_server()
    contender.connect()
    submit(_WARM_UP_TASKS)
    began = time.monotonic()
    submit(size)
    return size / (time.monotonic() - began)


_ROUND_TRIP = tuple(Measure(f"round_trip_p{p}", "ms", more_is_better=False) for p in (50, 95, 99))

SCENARIOS: Mapping[str, Scenario] = {
    "end_to_end": Scenario(end_to_end, (Measure("end_to_end", "tasks/s"),), quick=5_000, full=50_000),
    "drain": Scenario(drain, (Measure("drain", "tasks/s"),), quick=5_000, full=50_000),
    "submit_one_by_one": Scenario(
        submit_one_by_one, (Measure("submit_one_by_one", "tasks/s"),), quick=5_000, full=50_000
    ),
    "submit_bulk": Scenario(submit_bulk, (Measure("submit_bulk", "tasks/s"),), quick=5_000, full=50_000),
    "round_trip": Scenario(round_trip, _ROUND_TRIP, quick=200, full=2_000, results=True),
    "start_to_first_task": Scenario(
        start_to_first_task,
        (Measure("start_to_first_task", "s", more_is_better=False),),
        quick=1,
        full=1,
        results=True,
    ),
    "memory_per_100k_queued": Scenario(
        memory_per_100k_queued,
        (Measure("memory_per_100k_queued", "MB", more_is_better=False),),
        quick=20_000,
        full=100_000,
        repeatable=False,
    ),
}
