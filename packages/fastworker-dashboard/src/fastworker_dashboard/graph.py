"""A workflow as a drawing: each task in a column to the right of all that it needs. The page has a table of it, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastworker.views import WorkflowNode

MOST_DRAWN: Final = 60
"""Tasks; of a larger workflow there is only the table."""
WIDTH: Final = 168
HEIGHT: Final = 40
ACROSS: Final = 48
BETWEEN: Final = 12
LONGEST_NAME: Final = 20


@dataclass(frozen=True, slots=True)
class Box:
    """One task, and where it stands."""

    node: WorkflowNode
    x: int
    y: int

    @property
    def name(self) -> str:
        """As much of the name as there is room for."""
        name = self.node.name
        return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes, and the ways between them as SVG paths."""

    width: int
    height: int
    boxes: Sequence[Box]
    ways: Sequence[str]


def draw(nodes: Sequence[WorkflowNode]) -> Drawing | None:
    """The drawing of a workflow, its tasks in the order of submission; None if there is little or too much to see."""
    if not 1 < len(nodes) <= MOST_DRAWN:
        return None
    boxes: dict[str, Box] = {}
    columns: dict[str, int] = {}
    rows: dict[int, int] = {}
    for node in nodes:
        column = columns[node.id] = 1 + max((columns.get(above, -1) for above in uppers(node)), default=-1)
        row = rows[column] = rows.get(column, -1) + 1
        boxes[node.id] = Box(node, column * (WIDTH + ACROSS) + 1, row * (HEIGHT + BETWEEN) + 1)
    ways = [_way(boxes[above], box) for box in boxes.values() for above in uppers(box.node) if above in boxes]
    width = (1 + max(columns.values())) * (WIDTH + ACROSS) - ACROSS + 2
    height = (1 + max(rows.values())) * (HEIGHT + BETWEEN) - BETWEEN + 2
    return Drawing(width, height, list(boxes.values()), ways)


def uppers(node: WorkflowNode) -> set[str]:
    """The tasks that it needs, and the one that submitted it."""
    return {*node.needs, *([node.parent] if node.parent else [])}


def _way(start: Box, end: Box) -> str:
    """From the right edge of one to the left edge of the other."""
    x, y = start.x + WIDTH, start.y + HEIGHT // 2
    to_x, to_y = end.x, end.y + HEIGHT // 2
    bend = ACROSS // 2
    return f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"
