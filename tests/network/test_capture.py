"""What somebody sees who records all packets: with a key nothing of what tasks are called, carry and say."""

from __future__ import annotations

import secrets
import sys

import pytest

from tests.support.hosts import Network
from tests.support.waiting import until

KINDS = ("name", "queue", "tag", "argument", "result", "error", "progress", "log", "part")
TASKS = """
import os
from collections.abc import Iterator
from fastworker import current_task, task

CANARY = os.environ["CANARY"]

@task(name=f"name-{CANARY}", queue=f"queue-{CANARY}", tags=[f"tag-{CANARY}"])
def tell(text: str) -> str:
    current_task().progress(0.5, f"progress-{CANARY}")
    current_task().log(f"log-{CANARY}")
    return f"result-{CANARY}"

@task
def fail(text: str) -> None:
    raise ValueError(f"error-{CANARY}")

@task
def parts(text: str) -> Iterator[str]:
    yield f"part-{CANARY}"
"""
CLIENT = """
import asyncio, os
from fastworker import Client, TaskFailed

async def main(canary: str) -> None:
    argument = f"argument-{canary}"
    async with Client() as client:
        for result in await asyncio.gather(*[await client.submit(f"name-{canary}", [argument]) for _ in range(890)]):
            assert result == f"result-{canary}"
        for handle in [await client.submit("fail", [argument]) for _ in range(100)]:
            try:
                await handle
            except TaskFailed as error:
                assert f"error-{canary}" in str(error)
        for handle in [await client.submit("parts", [argument]) for _ in range(10)]:
            assert [part async for part in handle.stream()] == [f"part-{canary}"]

asyncio.run(main(os.environ["CANARY"]))
"""


@pytest.mark.parametrize("scheme", ["tls+tcp", "tcp"])
def test_a_recording_of_a_thousand_tasks_tells_something_only_without_a_key(network: Network, scheme: str) -> None:
    queue, one = (network.host(name, f"10.81.0.{n}/24") for n, name in enumerate(("queue", "one"), 1))
    url, canary = f"{scheme}://10.81.0.1:5555", secrets.token_hex(8)
    recording = queue.folder / "recording"
    recorder = queue.launch("recorder", [sys.executable, "-m", "tests.support.capture", "eth0", str(recording)])
    until(lambda: "recording" in recorder.log, 10, "the recorder")
    if scheme == "tcp":
        queue.start("--processes", "0", "--insecure", "--listen", url)
    else:
        queue.start("--processes", "0", "--listen", url)
        one.take_key(queue)
    one.environment |= {"FASTWORKER_URL": url, "CANARY": canary}
    (one.folder / "tasks.py").write_text(TASKS)
    one.worker()
    done = one.script(CLIENT)
    assert done.code == 0, done.err
    states = queue.client.stats().states
    assert (states["succeeded"], states["failed"]) == (900, 100)
    assert recorder.terminate() == 0
    assert "dropped 0" in recorder.log

    seen = recording.read_bytes()
    found = {kind: seen.count(f"{kind}-{canary}".encode()) for kind in KINDS}
    print(f"{scheme}: {len(seen)} bytes of payload, with {found}")
    if scheme == "tcp":
        assert found["argument"] >= 2000, "on its way to the control plane, and to the worker"
        assert all(found.values())
    else:
        assert not any(found.values())
        assert canary.encode() not in seen
        assert len(seen) > 500_000
