"""What a seed plans: how many take part, how good the network is, which faults happen when."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from fastworker.settings import Sync

NAMES = ("quick", "long", "flaky", "polite", "stuck", "once", "killer")
FAULTS = (
    "cut", "part", "part_and_cut", "lossy", "full", "stop_worker", "kill_worker", "replace_worker", "lose_machine",
    "drain_worker", "new_worker", "kill_server", "trap_server", "stop_server", "stop_server_cleanly", "fail_disk",
    "kill_client", "set_wall_clock",
)  # fmt: skip


@dataclass
class Plan:
    """The plan of one simulation."""

    limits: dict[str, Any]
    clients: int
    workers: int
    busy: float
    """Seconds in which clients are busy and faults happen."""
    pace: float
    """Mean seconds between two things that a client does."""
    faults: list[tuple[float, str]]
    delay: tuple[float, float]
    latency: tuple[float, float]
    own_worker: bool
    sync: Sync
    """`full`: every commit takes the way through the writer's thread."""


def make_plan(seed: str) -> Plan:
    """The plan of a seed. Each picks a few kinds of faults ("swarm testing"), some none at all."""
    random = Random(f"{seed}/plan")
    kinds = [kind for kind in FAULTS if random.random() < random.choice((0.0, 0.2, 0.5))]
    busy = random.uniform(4.0, 16.0)
    count = random.randint(1, 20) if kinds else 0
    faults = sorted((random.uniform(0.0, busy), random.choice(kinds)) for _ in range(count))
    slow = random.random() < 0.3
    return Plan(
        limits=random.choice(({}, {}, {"lease": 12.0, "silence": 5.0}, {"recovery": 3.0}, {"max_crashes": 2})),
        clients=random.randint(1, 3),
        workers=random.randint(1, 4),
        busy=busy,
        pace=random.choice((0.2, 0.5, 1.0)),
        faults=faults,
        delay=(0.0001, 0.05) if slow else (0.0001, 0.002),
        latency=random.choice(((0.0005, 0.002), (0.001, 0.01), (0.01, 0.1))),
        own_worker=random.random() < 0.4,
        sync="full" if random.random() < 0.5 else "normal",
    )
