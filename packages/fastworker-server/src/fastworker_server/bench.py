"""`fastworker bench`: how fast this machine is with tasks that do nothing."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from fastworker.cli.output import AsJson
from fastworker.errors import FastWorkerError

if TYPE_CHECKING:
    from fastworker.settings import StoreKind

ONE_BY_ONE = 500
WARM_UP = 200


@dataclass(frozen=True)
class BenchFigures:
    """What was measured. Durations are seconds.

    Attributes:
        tasks: how many were submitted at once.
        starting: until the control plane and its worker were ready.
        submit_rate: tasks per second until the last submission was stored.
        end_to_end_rate: tasks per second from the first submission to the last result.
        round_trip_p50: submit one task and wait for its result, one after the other: half took less than this.
        round_trip_p95: 95 of 100 took less than this.
    """

    store: str
    tasks: int
    starting: float
    submit_rate: float
    end_to_end_rate: float
    round_trip_p50: float
    round_trip_p95: float


def bench(
    tasks: Annotated[int, typer.Option(help="How many tasks to submit at once.", min=100)] = 20_000,
    memory: Annotated[bool, typer.Option("--memory", help="Keep the queue in memory instead of a file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure this machine: tasks that do nothing, one control plane, one worker process."""
    from fastworker.cli.output import print_json, print_pairs
    from fastworker_server.temporary import run_until_signal

    figures = run_until_signal(measure(tasks, "memory" if memory else "sqlite"))
    if as_json:
        print_json({**asdict(figures), "python": platform.python_version(), "processors": os.cpu_count()})
    else:
        print_pairs(describe(figures))


async def measure(tasks: int, store: StoreKind) -> BenchFigures:
    """Measure with a temporary control plane."""
    from fastworker.client import Client
    from fastworker_server.noop import noop
    from fastworker_server.temporary import temporary_control_plane

    began = time.perf_counter()
    async with temporary_control_plane([noop.__module__], processes=1, slots=8, store=store) as control_plane:
        client = Client(control_plane.url, connect_timeout=60.0)
        await control_plane.ready(client)
        starting = time.perf_counter() - began
        async with client:
            await asyncio.gather(*await noop.map(range(WARM_UP)))
            submitting, working = await _many(tasks)
            round_trips = await _one_by_one(ONE_BY_ONE)
    return BenchFigures(
        store,
        tasks,
        starting,
        tasks / submitting,
        tasks / working,
        _percentile(round_trips, 50),
        _percentile(round_trips, 95),
    )


async def _many(count: int) -> tuple[float, float]:
    """Seconds until all are stored, and until all results are here."""
    from fastworker_server.noop import noop

    began = time.perf_counter()
    handles = await noop.map(range(count))
    submitted = time.perf_counter()
    results = await asyncio.gather(*handles)
    ended = time.perf_counter()
    if results != list(range(count)):
        raise FastWorkerError("a result is wrong: please report this")
    return submitted - began, ended - began


async def _one_by_one(count: int) -> list[float]:
    """Seconds that each round trip took."""
    from fastworker_server.noop import noop

    times = []
    for number in range(count):
        began = time.perf_counter()
        await (await noop.submit(number))
        times.append(time.perf_counter() - began)
    return times


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[len(values) * percent // 100]


def describe(figures: BenchFigures) -> Sequence[tuple[str, str]]:
    """The figures for people."""
    return [
        ("store", "a file, sync normal" if figures.store == "sqlite" else "memory"),
        ("start until ready", f"{figures.starting:.2f} s"),
        (f"submit {figures.tasks:,} tasks at once", f"{figures.submit_rate:,.0f} tasks/s stored"),
        (f"end to end, {figures.tasks:,} tasks", f"{figures.end_to_end_rate:,.0f} tasks/s"),
        (
            "round trip, one after the other",
            f"{_ms(figures.round_trip_p50)} (p50), {_ms(figures.round_trip_p95)} (p95)",
        ),
        (
            "measured on",
            f"{os.cpu_count()} processors, Python {platform.python_version()}; one client, one worker process",
        ),
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
