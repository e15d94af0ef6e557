"""The tally is what counting would give, move by move."""

from __future__ import annotations

from fastworker.lifecycle import State
from fastworker.search import TaskFilter
from fastworker_server.tally import Tally
from tests.server.stage import Stage


def told(stage: Stage, tally: Tally) -> None:
    tally.tell(stage.engine.outbox)
    stage.engine.outbox.clear()


def test_the_tally_follows_the_engine() -> None:
    stage, tally = Stage(), Tally()
    stage.join("w", 2, "add", "mail")
    for number in range(4):
        stage.submit(f"{number}", "mail" if number % 2 else "add")
    told(stage, tally)
    assert tally.facets(TaskFilter()).states == {"queued": 4}
    first, second = stage.started()
    stage.report(first)
    stage.report(second, "failed")
    told(stage, tally)
    facets = tally.facets(TaskFilter())
    assert facets.states == {state: n for state, n in stage.engine.counts.items() if n and state is not State.NEW}
    assert facets.total == 4
    assert tally.facets(TaskFilter(states=(State.FAILED,))).names == {"mail": 1}
    assert ("add", State.SUCCEEDED) in tally.kinds(TaskFilter())
    assert tally.kinds(TaskFilter(names=("mail",), states=(State.FAILED,))) == [("mail", State.FAILED)]
    assert tally.kinds(TaskFilter(names=("unknown",))) == []
