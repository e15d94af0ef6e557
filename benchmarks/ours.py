"""FastWorker itself as a contender."""

from __future__ import annotations

from benchmarks.contender import Contender


class FastWorker(Contender):
    """Our own control plane and workers."""

    distribution = "fastworker-core"

    def start_server(self) -> int:
        raise NotImplementedError("our own driver is not written yet")

    def start_workers(self) -> None:
        raise NotImplementedError

    def connect(self) -> None:
        raise NotImplementedError

    def submit_one_by_one(self, count: int) -> None:
        raise NotImplementedError

    def round_trips(self, count: int) -> list[float]:
        raise NotImplementedError
