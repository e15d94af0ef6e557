"""The verdict over a run, as Jepsen's total-queue gives it: what was lost, what was unexpected, what ran twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.journal import Journal


@dataclass(frozen=True, slots=True)
class Verdict:
    """Tasks that went wrong.

    Attributes:
        submitted: how many submissions were acknowledged.
        lost: acknowledged, and never ran to an end.
        unexpected: ran, and nobody had submitted them.
        double: started more than once.
        crossed: ran with the payload of another task.
    """

    submitted: int
    lost: set[str]
    unexpected: set[str]
    double: set[str]
    crossed: set[str]

    def __str__(self) -> str:
        return (
            f"{self.submitted} submitted, {len(self.lost)} lost, {len(self.unexpected)} unexpected, "
            f"{len(self.double)} double, {len(self.crossed)} crossed"
        )

    @property
    def clean(self) -> bool:
        """Nothing went wrong; that a task ran twice is for the test to judge."""
        return not (self.lost or self.unexpected or self.crossed)


def judge(submitted: Mapping[str, str], answered: set[str], journal: Journal) -> Verdict:
    """Compare what was acknowledged with what the workers wrote down.

    Args:
        submitted: payload by task id.
        answered: the ids whose right answer has arrived.
    """
    starts = journal.events("start")
    counts = Counter(event.task for event in starts)
    return Verdict(
        submitted=len(submitted),
        lost=(submitted.keys() - answered) | (submitted.keys() - counts.keys()),
        unexpected=counts.keys() - submitted.keys(),
        double={task for task, count in counts.items() if count > 1},
        crossed={event.task for event in starts if event.payload != submitted.get(event.task, event.payload)},
    )
