"""How many tasks there are of each name, queue, priority and state: kept move by move, never counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from fastworker.found import Facets
from fastworker.lifecycle import OPEN, TERMINAL, State
from fastworker.search import TaskFilter
from fastworker.tasks import PRIORITIES
from fastworker_server.queue import Moved
from fastworker_server.storage.kinds import Kind

Key = tuple[str, str, int]
"""Task name, queue and rank."""


class Tally:
    """The counts, in memory that grows with the number of names, queues and priorities only."""

    def __init__(self) -> None:
        self._counts: dict[Key, dict[State, int]] = {}

    def add(self, kinds: Mapping[Kind, int]) -> None:
        """Count tasks that were there before."""
        for kind, number in kinds.items():
            self._of((kind.name, kind.queue, kind.rank))[kind.state] += number

    def remove(self, kinds: Mapping[Kind, int]) -> None:
        """These are forgotten."""
        for kind, number in kinds.items():
            self._of((kind.name, kind.queue, kind.rank))[kind.state] -= number

    def tell(self, moves: Iterable[Moved]) -> None:
        """Count moves."""
        for _, task, before, after, _, queue, rank, was in moves:
            counts = self._counts.get((task.name, queue, rank)) or self._of((task.name, queue, rank))
            (counts if was is None else self._of((task.name, *was)))[before] -= 1
            counts[after] += 1

    def _of(self, key: Key) -> dict[State, int]:
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = dict.fromkeys(State, 0)
        return counts

    # ---- questions -----------------------------------------------------------------------------------------------

    def facets(self, wanted: TaskFilter) -> Facets:
        """The counts of the tasks with the filter's names, queues, priorities and states; all else is overlooked."""
        states, names, queues, ranks = Counter[str](), Counter[str](), Counter[str](), Counter[int]()
        by_name: dict[str, Counter[str]] = {}
        for key, counts in self._matching(wanted):
            for state, number in counts.items():
                if number > 0 and state is not State.NEW and (not wanted.states or state in wanted.states):
                    states[state.value] += number
                    names[key[0]] += number
                    queues[key[1]] += number
                    ranks[key[2]] += number
                    by_name.setdefault(key[0], Counter())[state.value] += number
        priorities = {PRIORITIES[rank].value: ranks[rank] for rank in sorted(ranks)}
        return Facets(states.total(), True, dict(states), dict(names), dict(queues), priorities, {**by_name})

    def kinds(self, wanted: TaskFilter) -> list[tuple[str, State]]:
        """The names and states that tasks with the filter's names, queues, priorities and states can have now."""
        found: set[tuple[str, State]] = set()
        for key, counts in self._matching(wanted):
            moving = any(counts[state] > 0 for state in OPEN)  # it may be anywhere by the time it is looked for
            states = (*OPEN, *TERMINAL) if moving else [state for state in TERMINAL if counts[state] > 0]
            found.update((key[0], state) for state in states if not wanted.states or state in wanted.states)
        return sorted(found)

    def states_by_name(self) -> dict[str, dict[str, int]]:
        """The tasks of each name by state."""
        found: dict[str, dict[str, int]] = {}
        for (name, _, _), counts in self._counts.items():
            states = found.setdefault(name, {})
            for state, number in counts.items():
                if number > 0 and state is not State.NEW:
                    states[state.value] = states.get(state.value, 0) + number
        return found

    def _matching(self, wanted: TaskFilter) -> Iterable[tuple[Key, dict[State, int]]]:
        ranks = {priority.rank for priority in wanted.priorities}
        for key, counts in self._counts.items():
            name, queue, rank = key
            if (
                (not wanted.names or name in wanted.names)
                and (not wanted.queues or queue in wanted.queues)
                and (not ranks or rank in ranks)
            ):
                yield key, counts
