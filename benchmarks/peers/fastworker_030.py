"""fastworker 0.3.0, the last version before the rewrite, with its own broker-less control plane."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from importlib import import_module
from typing import Any

from benchmarks.contender import Contender
from benchmarks.job import Job, current_job
from benchmarks.processes import own_command
from benchmarks.tally import Counter

_job = current_job()
_fastworker: Any = import_module("fastworker")  # by name, so that a type checker does not take it for ours
_counter = Counter(_job.tally_folder)


def noop() -> None:
    _counter.add()


_fastworker.task(noop)
logging.disable(logging.WARNING)  # it logs each task at INFO

_ADDRESS = f"tcp://127.0.0.1:{_job.port}"
_DISCOVERY_PORT = _job.port + 10
_DISCOVERY = f"tcp://127.0.0.1:{_DISCOVERY_PORT}"
_LAST_PORT = _job.port + 3  # a port for each priority, opened in this order
_SUBMIT_TIMEOUT_SECONDS = 10
_CHECKED = 20


class WrongResults(Exception):
    """A task did not end as it should have."""


class FastWorker030(Contender):
    """One task at a time, executed by the control plane itself.

    That is its best honest configuration: from two tasks in flight on, it gives callers each other's results or
    "Incorrect state", and takes 50 tasks/s instead of 500, with or without subworkers.
    """

    distribution = "fastworker"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._loop = asyncio.new_event_loop()
        self._client: Any = _fastworker.Client(discovery_address=_DISCOVERY, timeout=_SUBMIT_TIMEOUT_SECONDS)

    def start_server(self) -> int:
        command = f"{own_command('fastworker')} control-plane --no-gui --task-modules {__name__}"
        addresses = f"--base-address {_ADDRESS} --discovery-address {_DISCOVERY} --subworker-port {_job.port + 5}"
        pid = self.processes.start(*command.split(), *addresses.split())
        _wait_until_listening(_LAST_PORT)
        return pid

    def start_workers(self) -> None:
        """Nothing: the control plane executes from its start on, and subworkers make it no faster."""

    def connect(self) -> None:
        self._loop.run_until_complete(self._discover())

    async def _discover(self) -> None:
        await self._client.start()  # sleeps two seconds
        while not self._client.workers:  # noqa: ASYNC110, it has nothing to wait for
            await asyncio.sleep(0.01)

    def submit_one_by_one(self, count: int) -> None:
        """Its `delay` only makes an asyncio task and cannot be awaited, so this waits for the result."""
        self.round_trips(count)

    def submit_bulk(self, count: int) -> None:
        self._loop.run_until_complete(self._submit_batch(count))

    async def _submit_batch(self, count: int) -> None:
        ids = await self._client.submit_batch([{"task_name": "noop"}] * count)
        for task_id in ids[:_CHECKED]:
            _check(await self._finished_result(task_id))

    async def _finished_result(self, task_id: str) -> Any:
        deadline = time.monotonic() + _SUBMIT_TIMEOUT_SECONDS
        while True:
            result = await self._client.get_task_result(task_id)
            if result is not None or time.monotonic() > deadline:
                return result
            await asyncio.sleep(0.01)

    def run_to_end(self, count: int) -> None:
        self.round_trips(count)

    def round_trips(self, count: int) -> list[float]:
        return self._loop.run_until_complete(self._round_trips(count))

    async def _round_trips(self, count: int) -> list[float]:
        return [await self._round_trip() for _ in range(count)]

    async def _round_trip(self) -> float:
        began = time.perf_counter()
        _check(await self._client.submit_task("noop"))
        return time.perf_counter() - began

    def close(self) -> None:
        self._loop.run_until_complete(self._disconnect())
        self._loop.close()
        super().close()

    async def _disconnect(self) -> None:
        self._client.stop()
        for listener in asyncio.all_tasks() - {asyncio.current_task()}:
            listener.cancel()
        await asyncio.sleep(0)


def _check(result: Any) -> None:
    if result is None:
        raise WrongResults("a task that was submitted has no result")
    if result.status != "success":
        raise WrongResults(f"a task that does nothing ended as {result.status.value}: {result.error}")


def _wait_until_listening(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.002)
