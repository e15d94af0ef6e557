"""dramatiq on Redis, with the middleware that it has by default."""

from __future__ import annotations

import dramatiq  # type: ignore[import-not-found]  # installed in this peer's environment
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]
from dramatiq.results import Results  # type: ignore[import-not-found]
from dramatiq.results.backends import RedisBackend  # type: ignore[import-not-found]

from benchmarks.contender import timed
from benchmarks.job import current_job
from benchmarks.peers.redis_peer import RedisPeer, socket_path
from benchmarks.processes import own_command
from benchmarks.tally import Counter

_job = current_job()
_url = f"unix://{socket_path(_job)}"
_broker = RedisBroker(url=_url)
if _job.results:
    _broker.add_middleware(Results(backend=RedisBackend(url=_url), store_results=True))
dramatiq.set_broker(_broker)
noop = dramatiq.actor(Counter(_job.tally_folder).add, actor_name="noop")

# Two processes beat one, three and four. While a client submits, one thread in each is best (5,300 tasks/s; two 4,500;
# eight, the default, 3,800); when only draining, eight are (14,400; one 11,400). Fetching 1,000 ahead instead of twice
# the threads: drain 4,200 before, 14,400 after; 4,000 ahead is no better.
_THREADS = 8 if _job.scenario == "drain" else 1
_AHEAD = 1_000
# An idle worker polls. By default that makes a round trip of 4.9 ms; at 1 ms, which costs an idle processor time, 1.0.
_POLL_MILLISECONDS = 1 if _job.results else 1_000


class Dramatiq(RedisPeer):
    distribution = "dramatiq"

    def start_workers(self) -> None:
        command = f"{own_command('dramatiq')} {__name__} --processes 2 --threads {_THREADS} --skip-logging"
        tuning = {"dramatiq_queue_prefetch": str(_AHEAD), "dramatiq_worker_timeout": str(_POLL_MILLISECONDS)}
        self.processes.start(*command.split(), environment=tuning)

    def submit_one_by_one(self, count: int) -> None:
        for _ in range(count):
            noop.send()

    def round_trips(self, count: int) -> list[float]:
        return [timed(lambda: noop.send().get_result(block=True)) for _ in range(count)]
