"""What can go wrong. Each fault is a few lines; most heal by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.processes import ClientProcess, SimProcess, WorkerProcess
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class Faults:
    """The faults of one simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = simulation.random

    def happen(self, kind: str) -> None:
        """One fault of this kind."""
        self._simulation.ledger.say("nature", kind)
        getattr(self, f"_{kind}")()

    def end(self) -> None:
        """All that was broken is whole again."""
        simulation = self._simulation
        simulation.ledger.say("nature", "all faults end")
        simulation.disk.failing, simulation.disk.trap = False, None
        for name, link in simulation.network.links.items():
            if link.parted_until > simulation.world.now:
                simulation.network.cut(name)
            link.drop = link.refuse = link.parted_until = 0.0
        for process in [simulation.server, *simulation.workers.values(), *simulation.clients.values()]:
            if process.stopped:
                process.resume()

    # ---- whom it hits --------------------------------------------------------------------------------------------

    def _some_worker(self) -> WorkerProcess | None:
        alive = [w for w in self._simulation.workers.values() if not w.dead and not w.leaving and not w.stopped]
        return self._random.choice(alive) if alive else None

    def _some_peer(self) -> SimProcess:
        simulation = self._simulation
        peers: list[SimProcess] = [*simulation.workers.values(), *simulation.clients.values()]
        return self._random.choice([peer for peer in peers if not peer.dead] or [simulation.nature])

    # ---- the network ---------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        self._simulation.network.cut(self._some_peer().name, self._random.choice((0.004, 0.004, 0.5, 5.0)))

    def _part(self) -> None:
        self._simulation.network.part(self._some_peer().name, self._seconds(), cut=False)

    def _part_and_cut(self) -> None:
        self._simulation.network.part(self._some_peer().name, self._seconds(), cut=True)

    def _seconds(self) -> float:
        return self._random.choice((0.3, 1.0, 1.9, 2.5, 8.0, 15.0, 70.0)) * self._random.uniform(0.8, 1.0)

    def _lossy(self) -> None:
        link = self._simulation.network.link(self._some_peer().name)
        link.drop = self._random.choice((0.02, 0.2, 0.5))
        self._simulation.later(self._seconds(), setattr, link, "drop", 0.0)

    def _full(self) -> None:
        link = self._simulation.network.link(self._some_peer().name)
        link.refuse = self._random.choice((0.1, 0.5))
        self._simulation.later(self._seconds(), setattr, link, "refuse", 0.0)

    # ---- workers -------------------------------------------------------------------------------------------------

    def _stop_worker(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            worker.stop()
            self._simulation.later(self._seconds(), self._go_on, worker)

    def _go_on(self, process: Process) -> None:
        if process.stopped and not process.dead:
            process.resume()

    def _kill_worker(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            self._kill(worker)

    def _kill(self, worker: WorkerProcess) -> None:
        simulation = self._simulation
        simulation.ledger.say(worker.name, "is killed")
        worker.kill()
        notice = simulation.server.control_plane.settings.reconnect + 1.0
        simulation.later(notice, simulation.checker.noticed_by_now, worker, simulation.server)

    def _replace_worker(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            self.kill_and_replace(worker)

    def kill_and_replace(self, process: Process) -> None:
        """A worker dies, and its supervisor starts another."""
        if not process.dead and isinstance(process, WorkerProcess) and not process.stopped:
            self._kill(process)
            self._simulation.later(self._random.uniform(0.1, 3.0), self._new_worker)

    def _lose_machine(self) -> None:
        """A worker's machine loses power: nobody closes its connection."""
        worker = self._some_worker()
        if worker is not None:
            worker.dead = True

    def _drain_worker(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            worker.spawn(worker.drain(self._random.choice((0.0, 0.5, 5.0))))
            self._simulation.later(self._random.uniform(0.1, 3.0), self._new_worker)

    def _new_worker(self) -> None:
        if sum(not worker.dead for worker in self._simulation.workers.values()) < 6:
            self._simulation.start_worker()

    # ---- clients -------------------------------------------------------------------------------------------------

    def _kill_client(self) -> None:
        alive = [client for client in self._simulation.clients.values() if not client.dead]
        if alive:
            self._kill_this_client(self._random.choice(alive))
            self._simulation.later(0.5, self._simulation.start_client)

    def _kill_this_client(self, client: ClientProcess) -> None:
        client.kill()
        del self._simulation.ledger.submitting[client.name]
        watched = self._simulation.ledger.watched
        for key in [key for key in watched if key[0] == client.name]:
            del watched[key]

    # ---- the control plane ---------------------------------------------------------------------------------------

    def _kill_server(self) -> None:
        simulation = self._simulation
        if not simulation.server.dead:
            simulation.ledger.say(simulation.server.name, "is killed")
            simulation.server.kill()
            simulation.later(self._random.choice((0.05, 0.5, 3.0, 12.0)), simulation.start_server)

    def _trap_server(self) -> None:
        """Kill it just before or just after its next commit."""
        self._simulation.disk.trap_after = self._random.random() < 0.6
        self._simulation.disk.trap = self._kill_server

    def _stop_server(self) -> None:
        server = self._simulation.server
        if not server.stopped and not server.dead:
            server.stop()
            self._simulation.later(self._random.choice((0.5, 3.0, 8.0)), self._go_on, server)

    def _stop_server_cleanly(self) -> None:
        server = self._simulation.server
        if server.up and not server.stopped and not server.dead:
            server.spawn(self._leave())

    async def _leave(self) -> None:
        server = self._simulation.server
        await server.control_plane.stop()
        if not server.dead:
            server.kill()
            self._simulation.later(self._random.uniform(0.1, 4.0), self._simulation.start_server)

    def _fail_disk(self) -> None:
        disk = self._simulation.disk
        disk.failing = True
        self._simulation.later(self._random.uniform(0.1, 5.0), setattr, disk, "failing", False)

    def _set_wall_clock(self) -> None:
        self._simulation.wall_clock_is_off = self._random.choice((-3600.0, 3600.0))
