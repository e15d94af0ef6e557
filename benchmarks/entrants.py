"""Who is measured. A new one is a module with a `Contender`, and a line here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PEERS = Path(__file__).parent / "peers"
_FEWEST = 500


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contender by name: where its driver is, and what its own environment needs."""

    name: str
    target: str
    requirements: Path | None = None
    """None: it is measured in the environment that the benchmark itself runs in."""
    share: float = 1.0
    """Slow ones get a share of a scenario's tasks, so that each figure still comes from a few seconds of work."""

    def size(self, tasks: int) -> int:
        return max(round(tasks * self.share), min(tasks, _FEWEST))


def _peer(name: str, module: str, contender: str, share: float = 1.0) -> Entrant:
    return Entrant(name, f"benchmarks.peers.{module}:{contender}", _PEERS / f"{module}.txt", share)


OURS = Entrant("fastworker", "benchmarks.ours:FastWorker")
ENTRANTS = (
    OURS,
    _peer("dramatiq", "dramatiq_redis", "Dramatiq"),
    _peer("huey", "huey_redis", "Huey"),
    _peer("celery", "celery_redis", "CeleryPeer", share=0.2),
    _peer("fastworker-0.3.0", "fastworker_030", "FastWorker030", share=0.02),
)
