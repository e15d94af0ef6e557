"""Workers and clients that stop, or read nothing of what they asked for: others are served as before."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fastworker import BlockingClient
from tests.security.calls import calling
from tests.security.deaf import TASK
from tests.security.fort import Fort, running_fort
from tests.support.waiting import Promised, until

pytestmark = pytest.mark.integration

HANGS = f"""
import time
from fastworker import task

@task
def {TASK}(seconds: float) -> None:
    time.sleep(seconds)
"""


@dataclass(frozen=True)
class Crowd:
    """How many peers are there that don't do their part, and for how many seconds."""

    stopped_workers: int
    stopped_clients: int
    deaf_clients: int
    deaf_workers: int
    seconds: float


A_FEW = Crowd(3, 2, 4, 3, 3.0)
FIFTY = Crowd(15, 10, 15, 10, 90.0)
"""Longer than the lease of a worker."""


@pytest.fixture
def fort(tmp_path: Path) -> Iterator[Fort]:
    with running_fort(tmp_path) as fort:
        yield fort


def gather(fort: Fort, crowd: Crowd) -> None:
    """Each worker is stopped in the middle of a task, each client while it is told what happens."""
    cluster = fort.cluster
    (cluster.folder / "hanging.py").write_text(HANGS)
    workers = [
        cluster.worker("hanging", "--url", fort.url, "--concurrency", "1", name=f"stopped-{number}", wait=False)
        for number in range(crowd.stopped_workers)
    ]
    clients = [cluster.module("tests.security.onlooker", fort.url) for _ in range(crowd.stopped_clients)]
    until(lambda: len(cluster.workers()) == crowd.stopped_workers + 1, 60, "the workers")
    cluster.client.submit_many(TASK, [(1000.0,)] * (crowd.stopped_workers + 2 * crowd.deaf_workers + 5))
    until(lambda: cluster.client.stats().states["running"] == crowd.stopped_workers, 20, "a task at each of them")
    until(lambda: all("following" in client.log for client in clients), 20, "the onlookers")
    for one in (*workers, *clients):
        one.signal(signal.SIGSTOP)
    keys = (fort.client_key.text, fort.worker_key.text)
    counts = (str(crowd.deaf_clients), str(crowd.deaf_workers))
    deaf = cluster.launch("deaf", [sys.executable, "-m", "tests.security.deaf", fort.url, *keys, *counts])
    until(lambda: "deaf" in deaf.log, 30, "the deaf ones")


def p99_of_calls(fort: Fort, seconds: float) -> float:
    """Of somebody who makes a hundred a second."""
    with calling(lambda: BlockingClient(fort.url, fort.client_key.text)) as calls:
        time.sleep(seconds)
    return calls.p99


@pytest.mark.parametrize("crowd", [A_FEW, pytest.param(FIFTY, marks=[pytest.mark.full, pytest.mark.timeout(600)])])
def test_who_stops_or_does_not_read_costs_others_nothing(fort: Fort, crowd: Crowd, promised: Promised) -> None:
    fort.cluster.worker("--url", fort.url, name="good")
    before = p99_of_calls(fort, crowd.seconds / 2)
    gather(fort, crowd)
    held = psutil.Process(fort.program.pid).memory_info().rss
    during = p99_of_calls(fort, crowd.seconds)
    print(f"p99 {before * 1000:.1f} ms before, {during * 1000:.1f} ms beside {crowd}: {during / before:.2f} times")
    assert during / before < promised(2.0)
    assert psutil.Process(fort.program.pid).memory_info().rss - held < 50_000_000
    assert "Traceback" not in fort.program.log
