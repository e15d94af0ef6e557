"""One control plane at several addresses: clients and workers follow it. Without networks of our own, on loopback."""

from __future__ import annotations

from fastworker import BlockingClient
from tests.support.cluster import Cluster, free_port
from tests.support.waiting import until


def test_clients_and_workers_follow_a_control_plane_to_another_of_its_addresses(cluster: Cluster) -> None:
    here, there = free_port(), free_port()
    places = f"tls+tcp://127.0.0.1:{here},127.0.0.1:{there}"
    control_plane = cluster.start("--processes", "0", "--listen", f"127.0.0.1:{here}")
    key = cluster.run("key", "show").out.strip()
    cluster.worker("--url", places)
    with BlockingClient(places, key) as client:
        assert client.result(client.delay("add", 1, 2), 20) == 3
        waiting = client.delay("nap", 0.01)
        control_plane.terminate()
        cluster.start("--processes", "0", "--listen", f"127.0.0.1:{there}")
        client.result(waiting, 20)
        assert client.result(client.delay("add", 3, 4), 20) == 7


def test_a_worker_takes_the_address_that_answers(cluster: Cluster) -> None:
    port = free_port()
    cluster.start("--processes", "0", "--listen", f"127.0.0.1:{port}")
    cluster.worker("--url", f"tls+tcp://no-such-host.invalid:5555,127.0.0.1:{free_port()},127.0.0.1:{port}")
    until(lambda: cluster.workers() == {"worker"}, 10, "the worker")
