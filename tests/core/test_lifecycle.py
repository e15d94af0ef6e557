"""All states, all moves: the table is the law, and the picture in the documentation is the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastworker import lifecycle
from fastworker.lifecycle import OPEN, PENDING, TERMINAL, TRANSITIONS, IllegalMove, Move, State, move
from fastworker.tasks import DEFAULTS, Task

ROOT = Path(__file__).resolve().parents[2]

# Written out once more by hand: whoever changes the table has to mean it.
LAW = """
    new        submit    queued
    new        schedule  scheduled
    new        await     waiting
    waiting    release   queued
    waiting    schedule  scheduled
    waiting    fail      failed
    waiting    cancel    cancelled
    waiting    expire    expired
    scheduled  release   queued
    scheduled  cancel    cancelled
    scheduled  expire    expired
    retrying   release   queued
    retrying   cancel    cancelled
    retrying   expire    expired
    queued     start     running
    queued     complete  succeeded
    queued     cancel    cancelled
    queued     expire    expired
    running    hand back queued
    running    lose      queued
    running    complete  succeeded
    running    retry     retrying
    running    fail      failed
    running    cancel    cancelled
    succeeded  requeue   queued
    failed     requeue   queued
    cancelled  requeue   queued
    expired    requeue   queued
    failed     await     waiting
    cancelled  await     waiting
    expired    await     waiting
"""


def law() -> dict[tuple[State, Move], State]:
    rows = [re.split(r"\s{2,}|(?<=back) ", line.strip()) for line in LAW.strip().splitlines()]
    return {(State(start), Move(what)): State(end) for start, what, end in rows}


def task_in(state: State) -> Task:
    return Task(1, "id-1", "add", "[]", DEFAULTS, "default", 2, 0.0, state=state)


@pytest.mark.parametrize("what", Move)
@pytest.mark.parametrize("state", State)
def test_each_move_leads_where_the_table_says_or_changes_nothing(state: State, what: Move) -> None:
    task = task_in(state)
    expected = law().get((state, what))
    if expected is not None:
        move(task, what)
        assert task == task_in(expected)
    else:
        with pytest.raises(IllegalMove, match=f"task id-1 is {state}: it can't {what}"):
            move(task, what)
        assert task == task_in(state)


def test_the_table_holds_nothing_else() -> None:
    assert law() == TRANSITIONS


def test_what_has_ended_stays_ended_unless_somebody_requeues_it() -> None:
    assert {what for state, what in TRANSITIONS if state in TERMINAL} == {Move.REQUEUE, Move.AWAIT}


def test_every_open_task_can_be_cancelled_and_whatever_waits_can_expire() -> None:
    assert {state for state, what in TRANSITIONS if what is Move.CANCEL} == OPEN
    assert {state for state, what in TRANSITIONS if what is Move.EXPIRE} == PENDING


def test_every_state_is_new_open_or_ended_and_can_be_reached() -> None:
    assert set(State) == {State.NEW} | OPEN | TERMINAL
    assert not OPEN & TERMINAL
    assert set(TRANSITIONS.values()) == set(State) - {State.NEW}


def test_every_move_is_used() -> None:
    assert {what for _, what in TRANSITIONS} == set(Move)


def test_only_move_writes_a_state() -> None:
    """`….state = …` stands once in the library."""
    writes = re.compile(r"\.state = |setattr\([^)]*[\"']state[\"']")
    lines = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in ROOT.glob("packages/*/src/**/*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if writes.search(line)
    ]
    assert lines == ["packages/fastworker-core/src/fastworker/lifecycle.py: task.state = to"]


def test_the_picture_in_the_documentation_is_drawn_from_the_table() -> None:
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```mermaid\n(.*?)\n```", page, re.DOTALL)
    assert lifecycle.picture() in blocks, (
        "docs/how-it-works.md must show the states as they are, in a ```mermaid block: "
        "paste what `lifecycle.picture()` returns"
    )


def test_the_picture_has_an_arrow_for_each_move_and_each_end() -> None:
    drawn = lifecycle.picture()
    assert drawn.startswith("stateDiagram-v2\n")
    assert drawn.count("-->") == len(TRANSITIONS) + len(TERMINAL)
