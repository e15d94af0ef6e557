"""Celery on Redis."""

from __future__ import annotations

from celery import Celery  # type: ignore[import-not-found]  # installed in this peer's environment

from benchmarks.contender import timed
from benchmarks.job import current_job
from benchmarks.peers.redis_peer import RedisPeer, socket_path
from benchmarks.processes import own_command
from benchmarks.tally import Counter

_job = current_job()
_url = f"redis+socket://{socket_path(_job)}"
app = Celery("benchmark", broker=_url, backend=_url if _job.results else None)
app.conf.update(
    task_ignore_result=not _job.results,
    worker_disable_rate_limits=True,
    worker_prefetch_multiplier=64,  # from 1 to 1,000 it makes no difference that the noise leaves visible
)
_counter = Counter(_job.tally_folder)


def count_one() -> None:
    _counter.add()


noop = app.task(name="noop")(count_one)

# Two workers that run tasks in their own process beat one worker with a pool of two (end to end 1,650 tasks/s against
# 1,170, drain 2,490 against 1,230), pools of one or four, threads, and `-O fair`. For round trips one of them (1.4 ms;
# two 1.5; the pool 1.9; results over rpc:// 1.9).
_WORKERS = 1 if _job.results else 2
_QUIET = "--loglevel ERROR --without-gossip --without-mingle --without-heartbeat"


class CeleryPeer(RedisPeer):
    distribution = "celery"

    def start_workers(self) -> None:
        for number in range(_WORKERS):
            command = f"{own_command('celery')} --app {__name__} worker --pool solo --hostname w{number}@bench {_QUIET}"
            self.processes.start(*command.split())

    def submit_one_by_one(self, count: int) -> None:
        """With one producer for all, which is 7 % faster than `delay` alone; `group` is no faster."""
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(count):
                noop.apply_async(producer=producer)

    def round_trips(self, count: int) -> list[float]:
        return [timed(lambda: noop.delay().get(timeout=30)) for _ in range(count)]
