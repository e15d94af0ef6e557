"""A better priority always runs first, also while much is going on."""

from __future__ import annotations

import random
import time

import pytest

from fastworker import Priority
from tests.chaos.conftest import Figures
from tests.support.cluster import Cluster
from tests.support.waiting import Promised

pytestmark = pytest.mark.calm

LONGEST_OVERTAKING = 0.050
"""Seconds for which a task may have been queued while a worse one is started."""
TOGETHER = 0.010
"""Two tasks that are sent to two workers at once don't start in the same microsecond: this close counts as together."""
MOST_QUEUED = 400
RANKS = {priority.value: rank for rank, priority in enumerate(Priority)}


def test_a_critical_task_starts_next(cluster: Cluster, figures: Figures, rounds: int) -> None:
    cluster.start("--concurrency", "1")
    client = cluster.client
    for n in range(rounds):
        before = len(cluster.journal.events("start"))
        blocker = client.delay("nap", 0.7, "blocker")
        cluster.await_starts(before + 1)
        normal = client.submit_many("work", [(f"normal {n} {i}",) for i in range(100)])
        critical = client.submit("work", [f"critical {n}"], priority="critical")
        for task_id in [blocker, critical, *normal]:
            client.result(task_id, 30)
        order = [event.payload for event in cluster.journal.events("start")[before:]]
        assert order == ["blocker", f"critical {n}", *(f"normal {n} {i}" for i in range(100))]
    figures("strict priority, one slot", f"{rounds} rounds, critical after 100 normal: started next in each")


def test_a_critical_task_starts_next_among_short_ones(cluster: Cluster, figures: Figures, rounds: int) -> None:
    """Work that was sent ahead to the worker waits behind it too."""
    cluster.start("--concurrency", "1")
    client = cluster.client
    most_between = 0
    for n in range(rounds):
        normal = client.submit_many("nap", [(0.005, f"normal {n} {i}") for i in range(100)])
        client.result(normal[10 + n % 20], 30)
        critical = client.submit("nap", [0.005, f"critical {n}"], priority="critical")
        for task_id in [critical, *normal]:
            client.result(task_id, 30)
        events = cluster.journal.events("start")
        start = next(event.at for event in events if event.task == critical)
        queued = client.info(critical).submitted_at
        most_between = max(most_between, sum(queued < event.at < start for event in events))
    figures("strict priority, short tasks", f"{rounds} rounds, at most {most_between} normal tasks started in between")
    assert most_between <= 2  # one may start while the critical one is on its way to the worker


def test_no_task_overtakes_a_better_one_under_load(
    cluster: Cluster, figures: Figures, promised: Promised, full: bool
) -> None:
    total = 20_000 if full else 2000
    chance = random.Random(7)
    cluster.start("--processes", "0")
    for name in ("first", "second"):
        cluster.worker("--concurrency", "4", name=name)
    client = cluster.client
    ids: list[str] = []
    began = time.monotonic()
    while len(ids) < total:  # bursts of all priorities, a little faster than the workers can follow
        priority = chance.choice(list(Priority))
        calls = [(chance.choice((0.0, 0.002, 0.01, 0.03)), len(ids) + i) for i in range(chance.randint(1, 60))]
        ids += client.submit_many("nap", calls, priority=priority)
        cluster.await_ends(len(ids) - MOST_QUEUED)
    for task_id in ids:
        client.result(task_id, 60)
    seconds = time.monotonic() - began

    started = {event.task: event.at for event in cluster.journal.events("start")}
    infos = {task_id: client.info(task_id) for task_id in ids}
    queued = {task_id: info.submitted_at for task_id, info in infos.items()}
    ranks = {task_id: RANKS[info.priority] for task_id, info in infos.items()}
    overtaken = overtakings(queued, started, ranks)
    worst = max((waited for waited, delay in overtaken if delay > TOGETHER), default=0.0)
    lead = max((delay for waited, delay in overtaken if waited > LONGEST_OVERTAKING), default=0.0)
    figures(
        "strict priority, mixed load",
        f"{len(ids)} tasks of 4 priorities, two workers of 4 slots, {seconds:.1f} s; overtaken tasks had been queued "
        f"for at most {worst * 1000:.1f} ms; of those queued for more than 50 ms none started more than "
        f"{lead * 1000:.1f} ms after a worse one",
    )
    assert len(started) == len(ids)
    assert worst <= promised(LONGEST_OVERTAKING)


def overtakings(
    queued: dict[str, float], started: dict[str, float], ranks: dict[str, int]
) -> list[tuple[float, float]]:
    """For each start of a worse task before a better one that was queued: for how long the better one had been queued
    by then, and how much later it started. One clock for all.
    """
    moments = sorted(
        [(queued[task], 0, task) for task in queued] + [(started[task], 1, task) for task in started],
        key=lambda moment: moment[:2],
    )
    waiting: list[dict[str, float]] = [{} for _ in RANKS]  # by rank
    found = []
    for at, is_start, task in moments:
        if not is_start:
            waiting[ranks[task]][task] = at
            continue
        waiting[ranks[task]].pop(task, None)
        found += [
            (at - since, started[other] - at) for better in waiting[: ranks[task]] for other, since in better.items()
        ]
    return found
