"""A control plane with a key, one good worker's place taken, and all that must not change when a bad peer knocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any

from fastworker import BlockingClient
from fastworker.keys import Key
from fastworker.protocol import Query
from tests.support.cluster import Cluster, Program, free_port
from tests.support.stranger import Stranger, hello
from tests.support.waiting import until

QUESTIONS = (Query(0, "bulk"), Query(0, "audit"), Query(0, "definitions"))


class Fort:
    """What the tests need of it."""

    def __init__(self, cluster: Cluster, program: Program, port: int, plain: str) -> None:
        self.cluster = cluster
        self.program = program
        self.port = port
        self.url = f"tls+tcp://127.0.0.1:{port}"
        self.plain = plain
        self.key = Key.from_text((cluster.folder / "config" / "fastworker" / "key").read_text())
        self.client_key = self.key.of("client")
        self.worker_key = self.key.of("worker")
        self.admin_key = self.key.of("admin")

    @property
    def admin(self) -> BlockingClient:
        """Looks from inside, over ipc."""
        return self.cluster.client

    def refused(self) -> dict[str, int]:
        """What was refused so far, by reason."""
        return self.admin.stats().refused

    def await_refusal(self, before: dict[str, int], reason: str) -> None:
        """Wait until one more was refused for this reason."""
        until(lambda: self.refused().get(reason, 0) > before.get(reason, 0), 5, f"a refusal for {reason}")

    def everything(self) -> Any:
        """All that a peer could have changed."""
        client = self.admin
        stats = client.stats()
        return (
            stats.states,
            sorted((worker.name, worker.slots, worker.paused) for worker in client.workers()),
            sorted((lane.queue, lane.name, lane.held) for lane in client.queues()),
            sorted((limits.name, limits.rates, limits.max_concurrency) for limits in client.limits()),
            client.schedules(),
            [client._do(methodcaller("_ask", question)) for question in QUESTIONS],
            self.program.pid,
        )

    def works(self) -> None:
        """Somebody with a key gets answers."""
        with BlockingClient(self.url, self.client_key.text) as client:
            assert client.result(client.delay("add", 2, 3), 10) == 5

    def client(self) -> Stranger:
        """Somebody with a client's key who has been welcomed."""
        return self._welcomed(self.client_key)

    def worker(self) -> Stranger:
        """Somebody with a worker's key who has been welcomed as a client."""
        return self._welcomed(self.worker_key)

    def _welcomed(self, key: Key) -> Stranger:
        one = Stranger.proved(self.url, key)
        one.say_frame(one.session, 1, hello())
        one.hears_a("welcome")
        return one


@contextmanager
def running_fort(folder: Path, **environment: str) -> Iterator[Fort]:
    """`fastworker start` with a TLS address, and a plain one that TLS peers may try."""
    with Cluster(folder) as cluster:
        port, plain = free_port(), f"tcp://127.0.0.1:{free_port()}"
        cluster.environment |= environment
        program = cluster.start(
            "--insecure", "--listen", f"tls+tcp://127.0.0.1:{port}", "--listen", plain, listen=cluster.url
        )
        cluster.await_own_worker()
        yield Fort(cluster, program, port, plain)
