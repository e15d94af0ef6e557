"""Clients of every kind: blocking code, asyncio, threads, several event loops, the network."""

from __future__ import annotations

import json
import secrets

import pytest

from tests.support.cluster import Cluster, Finished, free_port
from tests.support.waiting import until


def prints(cluster: Cluster, text: str, expected: str) -> None:
    """Run the program and compare all that it says."""
    done: Finished = cluster.script(text)
    assert (done.out, done.err, done.code) == (expected, "", 0)


# ---- the default client ------------------------------------------------------------------------------------------


def test_blocking_code(running: Cluster) -> None:
    prints(
        running,
        """
from tasks import add, add_async, echo
print(add.submit_sync(1, 2).result_sync(timeout=15))
print(add_async.send(3, b=4).result_sync(timeout=15))
print([handle.result_sync(15) for handle in echo.map_sync(["a", "b"])])
print(add(5, 6))
""",
        "3\n7\n['a', 'b']\n11\n",
    )


def test_asyncio_code(running: Cluster) -> None:
    prints(
        running,
        """
import asyncio
from tasks import add, echo

async def main():
    print(await (await add.submit(1, 2)))
    print(await (await add.delay(3, 4)).result(timeout=15))
    print([await handle for handle in await echo.map(range(3))])
    print(await asyncio.gather(*[handle.result(15) for handle in [await add.submit(i, i) for i in range(20)]]))

asyncio.run(main())
asyncio.run(main())
""",
        ("3\n7\n[0, 1, 2]\n" + str([2 * i for i in range(20)]) + "\n") * 2,
    )


def test_threads_share_the_default_client(running: Cluster) -> None:
    prints(
        running,
        """
from concurrent.futures import ThreadPoolExecutor
from tasks import add

def one(n):
    return add.submit_sync(n, n).result_sync(15)

with ThreadPoolExecutor(16) as pool:
    assert list(pool.map(one, range(200))) == [2 * n for n in range(200)]
print("right")
""",
        "right\n",
    )


def test_several_event_loops_in_threads_as_a_web_server_has_them(running: Cluster) -> None:
    prints(
        running,
        """
import asyncio, threading
from fastworker import Client
from tasks import add

answers = []

async def serve(n, own_client):
    if own_client:
        async with Client():
            answers.append(await (await add.submit(n, n)) == 2 * n)
    else:
        answers.append(await (await add.submit(n, n)) == 2 * n)

threads = [threading.Thread(target=lambda n=n: asyncio.run(serve(n, n % 2))) for n in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(answers.count(True))
""",
        "20\n",
    )


def test_a_handle_crosses_event_loops(running: Cluster) -> None:
    prints(
        running,
        """
import asyncio
from tasks import add, nap

handle = asyncio.run(nap.submit(0.5, "late"))
print(asyncio.run(handle.result(15)), handle.result_sync(15))
""",
        "late late\n",
    )


def test_a_blocking_call_in_an_event_loop_is_refused(running: Cluster) -> None:
    prints(
        running,
        """
import asyncio
from fastworker import ConfigurationError
from tasks import add

async def main():
    try:
        add.submit_sync(1, 2)
    except ConfigurationError as error:
        print(error)

asyncio.run(main())
""",
        "add.submit_sync() would block the event loop that runs here: use `await add.submit()`\n",
    )


def test_a_fork_after_connecting_is_a_clear_error(running: Cluster) -> None:
    done = running.script(
        """
import os, sys
from fastworker.errors import ForkError
from tasks import add

print(add.submit_sync(1, 2).result_sync(15), flush=True)
child = os.fork()
if child == 0:
    try:
        add.submit_sync(3, 4)
    except ForkError as error:
        print(error, flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1] == 0, add.submit_sync(5, 6).result_sync(15))
"""
    )
    assert done.out.startswith("3\nthis process was forked from one that was connected already")
    assert done.out.endswith("True 11\n")


# ---- handles -----------------------------------------------------------------------------------------------------


def test_a_handle_is_its_id(running: Cluster) -> None:
    done = running.script(
        """
import json
from tasks import add
handle = add.submit_sync(1, 2)
assert isinstance(handle, str)
print(json.dumps({"task_id": handle}))
"""
    )
    task_id = done.json["task_id"]
    assert running.client.result(task_id, 15) == 3


async def test_what_a_handle_can(running: Cluster) -> None:
    from fastworker import Client

    async with Client(running.url) as client:
        handle = await client.delay("nap_async", 60)
        until(lambda: running.client.info(handle).state == "running")
        assert await handle.status() == "running"
        assert (await handle.info()).name == "nap_async"
        assert await handle.cancel() == "interrupted"
        assert await handle.status() == "cancelled"

        quick = await client.submit("echo", [1], delay=0.3)
        assert [str(change.state) async for change in quick.events()][-1] == "succeeded"


async def test_many_in_one_request(running: Cluster) -> None:
    from fastworker import Client

    async with Client(running.url) as client:
        handles = await client.submit_many("add", [(n, n) for n in range(12_000)])
        assert [await handle for handle in handles] == [2 * n for n in range(12_000)]


def test_a_client_may_come_and_go(running: Cluster) -> None:
    from fastworker import BlockingClient

    for n in range(10):
        with BlockingClient(running.url) as client:
            assert client.result(client.delay("add", n, 1), 15) == n + 1


# ---- through restarts --------------------------------------------------------------------------------------------


def test_a_client_that_waits_lives_through_a_restart(cluster: Cluster) -> None:
    control_plane = cluster.start("--processes", "0")
    worker = cluster.worker()
    task_id = cluster.client.delay("nap", 2.0, "through")
    until(lambda: cluster.journal.count("start"), what="the start")
    control_plane.kill()
    cluster.start("--processes", "0")
    assert cluster.client.result(task_id, 20) == "through"
    assert cluster.client.result(cluster.client.delay("where"), 20) == worker.pid
    assert cluster.journal.starts_by_task() == {task_id: 1}


# ---- over the network --------------------------------------------------------------------------------------------


def test_tls_with_the_key_file(cluster: Cluster) -> None:
    address = f"tls+tcp://127.0.0.1:{free_port()}"
    cluster.start("--processes", "0", "--listen", address, listen=cluster.url)
    key = cluster.folder / "config" / "fastworker" / "key"
    assert (key.stat().st_mode & 0o777, len(bytes.fromhex(key.read_text()))) == (0o600, 32)
    worker = cluster.worker("--url", address)
    assert cluster.run("submit", "where", "--url", address).out == f"{worker.pid}\n"
    short = address.removeprefix("tls+tcp://")
    assert cluster.run("submit", "add", "--args", "[1, 2]", FASTWORKER_URL=short).out == "3\n"


def test_tls_with_a_wrong_key_is_refused(cluster: Cluster) -> None:
    address = f"tls+tcp://127.0.0.1:{free_port()}"
    control_plane = cluster.start("--listen", address, listen=cluster.url)
    done = cluster.run("submit", "add", "--args", "[1, 2]", "--url", address, FASTWORKER_KEY=secrets.token_hex(32))
    assert done.code == 4
    assert done.seconds < 10
    assert address in done.err
    assert "refused: the cluster keys differ" in done.err
    assert "Traceback" not in done.err
    assert control_plane.alive
    assert cluster.run("submit", "add", "--args", "[1, 2]", "--url", address).out == "3\n"


def test_a_wrong_key_is_not_plain_text(cluster: Cluster) -> None:
    done = cluster.run("workers", "--url", "tls+tcp://127.0.0.1:5555", FASTWORKER_KEY="not hexadecimal")
    assert done.code == 2
    assert "64 hexadecimal digits" in done.err


def test_no_key_at_all(cluster: Cluster) -> None:
    done = cluster.run("workers", "--url", "tls+tcp://127.0.0.1:5555")
    assert done.code == 2
    assert "there is no cluster key" in done.err
    assert "FASTWORKER_KEY" in done.err


def test_plain_tcp_only_when_asked_for(cluster: Cluster) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    refused = cluster.run("start", "--listen", address)
    assert refused.code == 2
    assert "--insecure" in refused.err
    control_plane = cluster.start("--insecure", "--listen", address, listen=cluster.url)
    until(lambda: "INSECURE" in control_plane.log, what="the warning")
    assert cluster.run("submit", "add", "--args", "[1, 2]", "--url", address).out == "3\n"


@pytest.mark.parametrize("url", ["http://localhost", "nonsense", "tcp://", "ipc:///" + "x" * 120, "tls+tcp://nowhere"])
def test_an_address_that_is_none(cluster: Cluster, url: str) -> None:
    done = cluster.run("workers", "--url", url, FASTWORKER_KEY="00" * 32)
    assert done.code in (2, 4)
    assert "Traceback" not in done.err
    assert json.dumps(url).strip('"') in done.err or "address" in done.err or "107 bytes" in done.err
