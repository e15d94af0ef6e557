"""The seeds that every change must pass. `make simulate SEEDS=10000` runs more, `make simulate GRAPHS=1000` graphs."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.pool import Pool

import pytest

from tests.simulation.plan import GRAPH_SEED
from tests.simulation.simulation import simulate

SEEDS = 200
GRAPH_SEEDS = 8
CHUNK = 50

pytestmark = pytest.mark.simulation


@pytest.fixture(scope="module")
def cores() -> Iterator[Pool]:
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        yield pool


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_nothing_is_lost_or_run_twice_whatever_fails(cores: Pool, start: int) -> None:
    reports = cores.map(simulate, range(start, start + CHUNK), chunksize=5)
    broken = [f"python -m tests.simulation --seed {r.seed}  # {r.violation}" for r in reports if r.violation]
    assert not broken, "replay with:\n" + "\n".join(broken)


def test_every_task_of_a_random_graph_ends_as_it_should(cores: Pool) -> None:
    """`python -m tests.simulation --graphs 1000` plays more."""
    reports = cores.map(simulate, [f"{GRAPH_SEED}{number}" for number in range(GRAPH_SEEDS)], chunksize=1)
    broken = [f"python -m tests.simulation --seed {r.seed}  # {r.violation}" for r in reports if r.violation]
    assert not broken, "replay with:\n" + "\n".join(broken)
    assert sum(report.graphs for report in reports) > 100
    assert sum(report.lost for report in reports) > 5, "workers are lost with tasks of graphs"


def test_seeds_reach_what_they_are_to_test(cores: Pool) -> None:
    reports = cores.map(simulate, range(20), chunksize=2)
    assert sum(report.tasks for report in reports) > 1000
    assert sum(report.lost for report in reports) > 20, "workers are lost with their tasks"
    assert sum(report.graphs for report in reports) > 40
    assert sum(report.crashes for report in reports) > 5, "control planes are restarted"


def test_a_seed_replays_exactly() -> None:
    first, second = simulate(46, tracing=True), simulate(46, tracing=True)
    assert first.trace == second.trace
    assert len(first.trace) > 100


def test_a_seed_replays_in_another_process() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "46"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[:-1] == simulate(46, tracing=True).trace
