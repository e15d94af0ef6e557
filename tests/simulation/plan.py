"""What a seed plans: how many take part, how good the network is, which faults happen when."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from fastworker.settings import Sync

NAMES = (
    "quick", "long", "flaky", "polite", "stuck", "once", "killer", "rated", "narrow", "keyed", "fair", "posted", "step",
)  # fmt: skip
FAULTS = (
    "cut", "part", "part_and_cut", "lossy", "full", "stop_worker", "kill_worker", "replace_worker", "lose_machine",
    "drain_worker", "new_worker", "kill_server", "trap_server", "stop_server", "stop_server_cleanly", "fail_disk",
    "kill_client", "set_wall_clock",
)  # fmt: skip
ACTIONS = {
    "submit": 10, "submit_again": 2, "cancel": 2, "requeue": 1, "pause": 1, "resume": 1, "ask": 2, "unique": 3,
    "idempotent": 1, "crowd": 1, "graph": 3, "dependent": 2, "limit": 1, "reprioritise": 1, "cancel_workflow": 1,
}  # fmt: skip
ONLY_GRAPHS = {"graph": 12, "dependent": 4, "cancel": 1, "requeue": 2, "cancel_workflow": 1, "ask": 1}
GRAPH_SEED = "g"
"""Seeds that begin so are about graphs, and always kill workers."""


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
    actions: dict[str, int]
    """What clients do, and how often."""
    small: bool
    """Tables are swept, and ended tasks forgotten, when they are still small."""


def make_plan(seed: str) -> Plan:
    """The plan of a seed. Each picks a few kinds of faults ("swarm testing"), some none at all."""
    random = Random(f"{seed}/plan")
    graphs = seed.startswith(GRAPH_SEED)
    kinds = [kind for kind in FAULTS if random.random() < random.choice((0.0, 0.2, 0.5))]
    kinds += ["kill_worker", "replace_worker", "replace_worker", "trap_server"] if graphs else []
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
        actions=ONLY_GRAPHS if graphs else ACTIONS,
        small=random.random() < 0.5,
    )
