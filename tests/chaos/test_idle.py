"""Idle costs nothing."""

from __future__ import annotations

import sys
import time

import psutil
import pytest

from tests.chaos.conftest import Figures
from tests.support.cluster import Cluster, Program
from tests.support.waiting import until

pytestmark = pytest.mark.calm

MOST = 0.01
"""Of one core, all processes together."""

IDLE_CLIENT = """
import time
from tasks import add
print(add.submit_sync(1, 2).result_sync(15), flush=True)
time.sleep(600)
"""


def processor_seconds(programs: list[Program]) -> float:
    """User and system time of the processes and of those that they started."""
    processes = [process for program in programs for process in (psutil.Process(program.pid), *program.children())]
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


def test_an_idle_cluster_uses_less_than_one_percent_of_a_core(cluster: Cluster, figures: Figures, full: bool) -> None:
    programs = [cluster.start(), cluster.worker()]
    (cluster.folder / "idle.py").write_text(IDLE_CLIENT)
    client = cluster.launch("client", [sys.executable, "idle.py"])
    until(lambda: client.log == "3\n", what="the client's answer")
    time.sleep(2)  # what the start leaves behind: threads that end, garbage that is collected
    before, began = processor_seconds(programs), time.monotonic()
    time.sleep(60 if full else 20)
    used, seconds = processor_seconds(programs) - before, time.monotonic() - began
    figures(
        "idle",
        f"control plane, own worker, subworker, one client connected: {used / seconds:.2%} of a core, {seconds:.0f} s",
    )
    assert client.alive
    assert used / seconds < MOST
