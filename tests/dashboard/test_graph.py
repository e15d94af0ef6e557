"""A workflow as a drawing."""

from __future__ import annotations

from fastworker.lifecycle import State
from fastworker.views import WorkflowNode
from fastworker_dashboard.graph import HEIGHT, MOST_DRAWN, WIDTH, draw


def node(name: str, *needs: str, parent: str | None = None) -> WorkflowNode:
    return WorkflowNode(name, name, State.SUCCEEDED, needs, parent)


def test_each_task_stands_to_the_right_of_all_that_it_needs_and_none_upon_another() -> None:
    drawing = draw([node("a"), node("b"), node("c", "a"), node("d", "b", "c"), node("e", parent="a")])
    assert drawing is not None
    at = {box.node.id: (box.x, box.y) for box in drawing.boxes}
    assert at["a"][0] == at["b"][0] < at["c"][0] == at["e"][0] < at["d"][0]
    assert len(set(at.values())) == 5
    assert len(drawing.ways) == 4
    assert all(x + WIDTH < drawing.width and y + HEIGHT < drawing.height for x, y in at.values())


def test_what_is_no_longer_kept_is_left_out() -> None:
    drawing = draw([node("a", "forgotten"), node("b", "a")])
    assert drawing is not None
    assert len(drawing.ways) == 1


def test_of_one_task_or_of_very_many_there_is_no_drawing() -> None:
    assert draw([node("a")]) is None
    assert draw([node(f"{n}") for n in range(MOST_DRAWN + 1)]) is None
