"""Limits and fair share over several workers, measured by the tasks themselves."""

from __future__ import annotations

import shutil
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from tests.chaos.conftest import Figures
from tests.support import flow_tasks
from tests.support.cluster import Cluster, Program
from tests.support.journal import Event
from tests.support.waiting import until

pytestmark = pytest.mark.full

RATE = 100
LEAST_USED = {True: 0.98, False: 0.90}
"""Of the allowance, in full size on a machine of its own, and in the short size on whatever machine runs it."""
WORKERS = ("first", "second", "third", "fourth")
MANY = 10_000
"""Submitted in requests of so many."""


@pytest.fixture
def flowing(cluster: Cluster) -> Cluster:
    """A control plane without workers of its own, and four workers."""
    shutil.copy(Path(flow_tasks.__file__), cluster.folder)
    cluster.start("--processes", "0")
    for name in WORKERS:
        cluster.worker("--concurrency", "4", name=name, wait=False)
    until(lambda: cluster.workers() == set(WORKERS), 60, "all workers")
    return cluster


def most_in_any(seconds: float, starts: Sequence[float]) -> int:
    """The most starts in any stretch of that length."""
    ordered = sorted(starts)
    return max(bisect_left(ordered, at + seconds) - number for number, at in enumerate(ordered))


def starts_of(cluster: Cluster, ids: Iterable[str]) -> list[Event]:
    wanted = set(map(str, ids))
    return [event for event in cluster.journal.events("start") if event.task in wanted]


# ---- rates -----------------------------------------------------------------------------------------------------------


def test_a_rate_is_kept_and_used_over_four_workers(flowing: Cluster, figures: Figures, full: bool) -> None:
    count = 2000 if full else 500
    ids = flowing.client.submit_many("hundred_a_second", [(n,) for n in range(count)])
    flowing.await_starts(count, 60)
    starts = [event.at for event in starts_of(flowing, ids)]
    most = most_in_any(1.0, starts)
    used = (count / RATE - 1) / (max(starts) - min(starts))  # a hundred at once, then a hundred in each second
    figures(
        "rate limit 100/s, four workers",
        f"{count} tasks: at most {most} starts in any second, {used:.1%} of the allowance used",
    )
    assert len(starts) == count
    assert most <= RATE + 1
    assert used >= LEAST_USED[full]


def test_each_of_many_keys_has_its_own_rate(flowing: Cluster, figures: Figures, full: bool) -> None:
    """One in two seconds for each: what one key waits for does not hold the others."""
    keys, each = (1000, 6) if full else (200, 3)
    flowing.script(
        "from flow_tasks import one_in_two_seconds_for_each as limited\n"
        f"limited.map_sync(f'user {{n % {keys}}}' for n in range({keys * each}))"
    )
    flowing.await_starts(keys * each, 120)
    by_key: dict[str, list[float]] = defaultdict(list)
    for event in flowing.journal.events("start"):
        by_key[event.payload].append(event.at)
    most = max(most_in_any(2.0, starts) for starts in by_key.values())
    used = 2.0 * (each - 1) * keys / sum(max(starts) - min(starts) for starts in by_key.values())
    figures(
        "rate limit 1/2s for each key, four workers",
        f"{len(by_key)} keys of {each} tasks: at most {most} starts of a key in any 2 s, {used:.1%} of the allowance "
        "used",
    )
    assert {len(starts) for starts in by_key.values()} == {each}
    assert most <= 1 + 1
    assert used >= LEAST_USED[full]


# ---- concurrency -----------------------------------------------------------------------------------------------------


def test_never_more_than_three_at_once_though_workers_are_killed(
    flowing: Cluster, figures: Figures, full: bool
) -> None:
    count, kills = (5000, 20) if full else (600, 3)
    client = flowing.client
    ids = client.submit_many("three_at_once", [(0.01,)] * count)
    victims: list[Program] = [program for program in flowing.programs if program.log_path.name.startswith(WORKERS)]
    killed: dict[int, float] = {}
    for kill in range(kills):
        flowing.await_starts((kill + 1) * count // (kills + 2), 120)
        victim = victims.pop(0)
        victim.kill()
        killed[victim.pid] = time.time()
        victims.append(flowing.worker("--concurrency", "4", name=f"heir-{kill}", wait=False))
    until(lambda: client.stats().states["succeeded"] == count, 180, "the end of all")
    most, again = at_once(flowing.journal.events(), killed)
    figures(
        "max_concurrency=3, four workers",
        f"{count} tasks, {kills} workers killed: at most {most} ran at once, {again} ran again, all ended",
    )
    assert most <= 3
    assert set(flowing.journal.starts_by_task()) == set(map(str, ids))


def at_once(events: Sequence[Event], killed: dict[int, float]) -> tuple[int, int]:
    """How many ran at the same time at most, and how many were started again. `killed`: processes, and when."""
    ended = {(event.task, event.attempt) for event in events if event.what == "end"}
    moments = []
    for event in events:
        moments.append((event.at, 1 if event.what == "start" else -1))
        if event.what == "start" and (event.task, event.attempt) not in ended:
            moments.append((killed[event.pid], -1))
    most = running = 0
    for _, step in sorted(moments):
        running += step
        most = max(most, running)
    return most, sum(event.what == "start" and event.attempt > 1 for event in events)


# ---- fair share ------------------------------------------------------------------------------------------------------


def test_the_ten_tasks_of_one_tenant_do_not_wait_for_the_many_of_another(
    cluster: Cluster, figures: Figures, full: bool
) -> None:
    """Within twice the time that they take alone."""
    many, seconds = (100_000 if full else 3000), 0.05
    shutil.copy(Path(flow_tasks.__file__), cluster.folder)
    cluster.start("--concurrency", "1")
    client = cluster.client

    def ten() -> float:
        began = time.monotonic()
        ids = client.submit_many("of_tenant", [("small", seconds)] * 10, fair_key="small")
        for task_id in ids:
            client.result(task_id, 120)
        return time.monotonic() - began

    alone = [ten() for _ in range(3)]
    for _ in range(0, many, MANY):
        client.submit_many("of_tenant", [("large", seconds)] * min(many, MANY), fair_key="large")
    until(lambda: any(event.payload == "large" for event in cluster.journal.events("end")), what="the many")
    before = cluster.journal.count("end")
    beside = ten()
    queued = client.stats().states["queued"]
    ends = [event.payload for event in cluster.journal.events("end")][before:]
    between = ends[: len(ends) - ends[::-1].index("small")].count("large")
    figures(
        "fair share, one slot",
        f"ten tasks of {seconds * 1000:.0f} ms beside {many:,} of another tenant: {beside:.2f} s, "
        f"{beside / min(alone):.2f} times the {min(alone):.2f} s that they take alone; {between} others ran between; "
        f"{queued:,} were queued still",
    )
    assert queued > many - 200
    assert between <= 11  # ten turns, and the one that ran already
    assert not full or beside <= 2 * max(alone)
