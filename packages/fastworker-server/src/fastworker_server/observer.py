"""Everything that counts, and those who look on: it reads the engine's moves, as everybody else does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastworker.activity import Activity
from fastworker.lifecycle import State
from fastworker.tasks import PRIORITIES
from fastworker_server.durations import Durations
from fastworker_server.engine import Engine
from fastworker_server.flows import Flows
from fastworker_server.onlookers import Onlookers
from fastworker_server.queue import Moved
from fastworker_server.rings import Rings
from fastworker_server.storage.indexer import Indexer
from fastworker_server.tally import Tally

MOST_TYPES: Final = 1000


class Observer:
    """Tally, rings, durations and onlookers, all told at once."""

    def __init__(self, engine: Engine, tally: Tally, indexer: Indexer, onlookers: Onlookers) -> None:
        self._engine = engine
        self._tally = tally
        self._indexer = indexer
        self.rings = Rings()
        self._onlookers = onlookers
        self._durations = Durations()
        self._flows = Flows()

    def tell(self, moves: Sequence[Moved]) -> None:
        """Count moves."""
        counts = self._engine.counts
        self._tally.tell(moves)
        self.rings.tell(moves, counts[State.QUEUED], counts[State.RUNNING])
        self._durations.tell(moves)
        self._flows.tell(moves)
        self._onlookers.tell(moves)
        self._indexer.failed(m.task.seq for m in moves if m.after is State.FAILED)
        self._indexer.failed_no_more(m.task.seq for m in moves if m.before is State.FAILED)

    def activity(self, now: float) -> Activity:
        """What has been going on."""
        lanes = self._engine.lanes
        oldest = [lane.oldest() for lane in lanes if len(lane)]
        states = self._tally.states_by_name()
        names = sorted({*states, *self._durations.names()})[:MOST_TYPES]
        return Activity(
            now=now,
            version=self._engine.version,
            states={state.value: n for state, n in self._engine.counts.items() if state is not State.NEW},
            queued={priority.value: lanes.queued(priority.rank) for priority in PRIORITIES},
            oldest=min((at for at in oldest if at is not None), default=None),
            series=self.rings.series(now),
            types=[self._durations.type(name, states.get(name, {}), now) for name in names],
            paused_queues=sorted(lanes.paused_queues),
            paused_names=sorted(lanes.paused_names),
            flows=self._flows.rates(now),
            pauses=list(lanes.pauses.values()),
        )
