"""huey on Redis."""

from __future__ import annotations

from huey import RedisHuey  # type: ignore[import-not-found]  # installed in this peer's environment

from benchmarks.contender import timed
from benchmarks.job import current_job
from benchmarks.peers.redis_peer import RedisPeer, socket_path
from benchmarks.processes import own_command
from benchmarks.tally import Counter

_job = current_job()
huey = RedisHuey(url=f"unix://{socket_path(_job)}", results=_job.results, store_none=True)
noop = huey.task(name="noop")(Counter(_job.tally_folder).add)

# Each worker takes a task in a round trip to Redis, so processes beat threads and greenlets, one or two consumers of
# them. While a client submits, two processes are best (5,700 tasks/s; eight 5,200; threads 5,300); when only draining,
# eight are (10,700; two 7,400; sixteen 10,000). For round trips one thread (0.7 ms; one process 0.7 to 1.0).
_WORKERS = {"drain": "process 8", "round_trip": "thread 1", "start_to_first_task": "thread 1"}
# Polling for a result this often is as fast as `notify_result` and steadier.
_POLL_SECONDS = 0.0001


class Huey(RedisPeer):
    distribution = "huey"

    def start_workers(self) -> None:
        kind, number = _WORKERS.get(_job.scenario, "process 2").split()
        command = f"{own_command('huey_consumer')} {__name__}.huey --worker-type {kind} --workers {number}"
        self.processes.start(*command.split(), "--quiet", "--no-periodic")

    def submit_one_by_one(self, count: int) -> None:
        for _ in range(count):
            noop()

    def round_trips(self, count: int) -> list[float]:
        return [timed(lambda: noop().get(blocking=True, max_delay=_POLL_SECONDS)) for _ in range(count)]
