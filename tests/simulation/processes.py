"""The simulated processes: control planes, workers and clients, each the real class with simulated edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, cast

from fastworker.client import Client
from fastworker.connection import Connection
from fastworker.function import Registry
from fastworker.protocol import Hello, Message, Recorded, Token
from fastworker.settings import Settings
from fastworker.tasks import Definition
from fastworker_server.control_plane import ControlPlane
from fastworker_worker.worker import Worker
from tests.simulation.pool import DEFINITIONS
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

URL = "ipc:///simulated"


class SimProcess(Process):
    """A process that knows its simulation."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        super().__init__(simulation.world, name)
        self.simulation = simulation


class Server(SimProcess):
    """One life of the control plane."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        super().__init__(simulation, f"control-{number}")
        self.began = simulation.world.now
        settings = Settings(
            store="memory", sync=simulation.plan.sync, listen=[URL], processes=0, **simulation.plan.limits
        )  # "memory": the disk of the simulation is behind it
        self.control_plane = ControlPlane(settings)
        self.up = False

    async def main(self) -> None:
        """What the process does."""
        await self.control_plane.start()
        self.up = True


class Names:
    """Stands for a registry of task functions."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def __iter__(self) -> Iterator[Names._Function]:
        return (Names._Function(name) for name in self._names)

    def get(self, name: str) -> None:
        """No function: the pool is simulated."""

    class _Function:
        run_in = None
        log_prints = False

        def __init__(self, name: str) -> None:
            self._name = name

        def definition(self) -> Definition:
            return DEFINITIONS[self._name]


class SimWorker(Worker):
    """The real worker; it says which process and host it is, and notes what is recorded."""

    def __init__(self, process: WorkerProcess, slots: int, names: list[str], *, own: bool) -> None:
        super().__init__(URL, slots=slots, own=own, name=process.name, tasks=cast(Registry, Names(names)))
        self._process = process

    def _hello(self) -> Hello:
        return replace(super()._hello(), host="simulated", pid=self._process.number)

    def _received(self, message: Message) -> None:
        if isinstance(message, Recorded):
            for number, batch in self._unrecorded.items():
                if number <= message.number:
                    self._process.simulation.checker.recorded(self._process, batch.items)
        super()._received(message)

    def holding(self) -> list[Token]:
        """What it holds, or has not yet got rid of."""
        return self._holding()


class WorkerProcess(SimProcess):
    """A worker."""

    def __init__(self, simulation: Simulation, number: int, names: list[str], slots: int, *, own: bool = False) -> None:
        super().__init__(simulation, f"worker-{number}")
        self.number = number
        self.names = names
        self.slots = slots
        self.worker = SimWorker(self, slots, names, own=own)

    async def main(self) -> None:
        """What the process does."""
        await self.worker.start()

    async def drain(self, grace: float) -> None:
        """SIGTERM."""
        self.leaving = True
        await self.worker.drain(grace)
        self.kill()

    def holds(self, task_id: str, attempt: int) -> bool:
        """Whether this attempt is here, running, waiting or unrecorded."""
        return not self.dead and Token(task_id, attempt) in self.worker.holding()


class ClientProcess(SimProcess):
    """A client; what it does is told by `behaviour`."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        super().__init__(simulation, f"client-{number}")
        self.random = Random(f"{simulation.seed}/{self.name}")
        self.client = Client(URL, connect_timeout=1e9)
        self.ids = 0

    def new_id(self) -> str:
        """An id that follows from the seed."""
        self.ids += 1
        return f"00000000-0000-7000-8000-{int(self.name.split('-')[1]):08d}{self.ids:04d}"

    @property
    def connection(self) -> Connection | None:
        """The client's connection, once it has one."""
        return self.client._connection
