"""One simulation: puts the processes together, lets faults happen, lets time run on, and asks the checker."""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, cast

from fastworker_server.workers import WorkerPlace
from tests.simulation import behaviour
from tests.simulation.checker import Checker
from tests.simulation.disk import Disk
from tests.simulation.faults import Faults
from tests.simulation.ledger import Ledger, Violation
from tests.simulation.network import Link, Network
from tests.simulation.plan import NAMES, make_plan
from tests.simulation.processes import ClientProcess, Server, SimProcess, WorkerProcess
from tests.simulation.seams import seams
from tests.simulation.world import EPOCH, Process, World

Behaviour = Callable[[ClientProcess, "Simulation"], Coroutine[Any, Any, None]]
PATIENCE = 400.0
"""Seconds after the last fault in which everything must have come to its end."""


@dataclass
class Report:
    """What became of one seed."""

    seed: str
    steps: int
    seconds: float
    tasks: int
    graphs: int
    executions: int
    moves: int
    lost: int
    crashes: int
    violation: str | None
    trace: list[str]


class Simulation:
    """Everything that follows from one seed."""

    def __init__(self, seed: str, *, tracing: bool = False) -> None:
        self.seed = seed
        self.plan = make_plan(seed)
        self.world = World()
        self.ledger = Ledger(self.world, tracing)
        self.network = Network(self.world, seed)
        self.random = Random(f"{seed}/faults")
        self.disk = Disk(self.world, Random(f"{seed}/disk"), self.plan.latency)
        self.checker = Checker(self)
        self.faults = Faults(self)
        self.ledger.on_execution = self.checker.executes
        self.world.on_error = self._complain
        self.world.after_step = self._after_step
        self.quiet_from = EPOCH + self.plan.busy
        self.wall_clock_is_off = 0.0
        self.workers: dict[str, WorkerProcess] = {}
        self.clients: dict[str, ClientProcess] = {}
        self.servers = 0
        self.nature = SimProcess(self, "nature")

    # ---- processes -----------------------------------------------------------------------------------------------

    def start_server(self) -> None:
        """A control plane starts, with what the disk holds."""
        self.servers += 1
        self.server = Server(self, self.servers)
        self.ledger.say(self.server.name, "starts")
        self.server.spawn(self.server.main())

    def start_worker(self, names: list[str] | None = None, slots: int | None = None, *, own: bool = False) -> None:
        """A worker starts."""
        chosen = names or self.random.sample(NAMES, self.random.randint(3, len(NAMES)))
        slots = slots or self.random.randint(1, 4)
        worker = WorkerProcess(self, len(self.workers) + 1, chosen, slots, own=own)
        self.ledger.say(worker.name, f"starts: {worker.worker._slots} slots, {' '.join(chosen)}")
        self.workers[worker.name] = worker
        self._link(worker)
        worker.spawn(worker.main())

    def start_client(self, behave: Behaviour = behaviour.behave) -> None:
        """A client starts."""
        client = ClientProcess(self, len(self.clients) + 1)
        self.clients[client.name] = client
        self._link(client)
        client.spawn(behave(client, self))

    def _link(self, process: Process) -> None:
        self.network.links[process.name] = Link(Random(f"{self.seed}/link/{process.name}"), self.plan.delay)

    def may_live(self, worker: WorkerPlace) -> bool:
        """What a starting control plane can see of a worker of its predecessor."""
        return not self.workers[worker.name].dead

    def kill_soon(self, process: Process, delay: float) -> None:
        """The code that a worker runs kills it."""
        if self.world.now < self.quiet_from:
            self.later(delay, self.faults.kill_and_replace, process)

    def later(self, delay: float, call: Callable[..., Any], *args: Any) -> None:
        """Let something happen."""
        self.nature.loop.call_later(delay, call, *args)

    # ---- run -----------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Run to the end, or to the first violation."""
        violation = None
        gc.disable()  # weak references must die at moments that follow from the seed
        with seams(self):
            try:
                self._play()
            except Violation as broken:
                violation = str(broken)
            finally:
                self._tear_down()
                gc.enable()
        runs = sum(map(len, self.ledger.executions.values()))
        return Report(
            self.seed, self.world.steps, self.world.now - EPOCH, len(self.ledger.submitted), len(self.ledger.graphs),
            runs, self.checker.moves, self.checker.lost, self.servers - 1, violation, self.ledger.trace,
        )  # fmt: skip

    def _play(self) -> None:
        self.start_server()
        for _ in range(self.plan.workers):
            self.start_worker()
        if self.plan.own_worker:
            self.start_worker(list(NAMES), own=True)
        for _ in range(self.plan.clients):
            self.start_client()
        for at, kind in self.plan.faults:
            self.later(at, self.faults.happen, kind)
        self.world.run(self.quiet_from)
        self.faults.end()
        self._come_to_rest()
        self.checker.check_end(self.server.control_plane.engine)
        self.checker.raise_first()

    def _come_to_rest(self) -> None:
        """No more faults: a worker for every name, nothing paused, and time."""
        self.start_worker(list(NAMES), slots=16)
        self.start_client(behaviour.resume_all)
        self._wait_until(self._is_at_rest)
        self.checker.check_peers(self.server.control_plane.engine)
        for client in self.clients.values():
            client.kill()  # one that was cut off for long may have woken up and begun something new
        self.world.run(max(self.world.now, self.network.last_arrival) + 1.0)
        self._wait_until(lambda: not self.server.control_plane.engine.tasks)
        self.world.run(self.world.now + 1.0)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        end = self.world.now + PATIENCE
        while self.world.now < end and not condition():
            self.world.run(self.world.now + 2.0)

    def _is_at_rest(self) -> bool:
        if not self.server.up or self.server.dead:
            return False
        engine, ledger = self.server.control_plane.engine, self.ledger
        said_all = ledger.all_resumed and not any(ledger.submitting.values())
        missing = self.checker.missing_workers(engine)
        return said_all and not engine.tasks and not ledger.dead_ends() and not missing

    def _after_step(self, process: Process) -> None:
        if process is self.server and self.server.up:
            self.checker.check_step(self.server.control_plane.engine)
        self.checker.raise_first()

    def _complain(self, process: Process, text: str) -> None:
        self.checker.fail(f"{process.name}: {text}")

    def _tear_down(self) -> None:
        for process in [self.server, *self.workers.values(), *self.clients.values(), self.nature]:
            cast(Process, process).kill()
        self.disk.drop()


def simulate(seed: int | str, *, tracing: bool = False) -> Report:
    """Run one seed."""
    return Simulation(str(seed), tracing=tracing).run()
