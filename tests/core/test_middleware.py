"""Middleware: an onion round each submission and each run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from fastworker.context import CurrentTask
from fastworker.middleware import (
    Middleware,
    RunNext,
    SubmitNext,
    active_middleware,
    add_middleware,
    around_run,
    around_submit,
    remove_middleware,
)
from fastworker.protocol import Submission


class Told(Middleware):
    """Writes down what it sees."""

    def __init__(self, name: str, story: list[str]) -> None:
        self.name = name
        self.story = story

    async def submit(self, submissions: Sequence[Submission], call_next: SubmitNext) -> None:
        self.story.append(f"{self.name} in")
        for submission in submissions:
            submission.headers = {**(submission.headers or {}), self.name: "was here"}
        await call_next(submissions)
        self.story.append(f"{self.name} out")

    async def run(self, task: CurrentTask, call_next: RunNext) -> Any:
        self.story.append(f"{self.name} in")
        try:
            return await call_next(task)
        finally:
            self.story.append(f"{self.name} out")


@pytest.fixture
def added() -> Iterator[list[Middleware]]:
    """Middleware that is removed again."""
    mine: list[Middleware] = []
    yield mine
    for middleware in mine:
        remove_middleware(middleware)


async def test_the_first_one_is_the_outermost() -> None:
    story: list[str] = []

    async def innermost(task: CurrentTask) -> str:
        story.append(f"runs {task.name}")
        return "result"

    onion = around_run([Told("a", story), Told("b", story)], innermost)
    assert await onion(CurrentTask("id", "add", 1)) == "result"
    assert story == ["a in", "b in", "runs add", "b out", "a out"]


async def test_middleware_of_a_submission_may_change_the_headers() -> None:
    story: list[str] = []
    sent: list[Submission] = []

    async def innermost(submissions: Sequence[Submission]) -> None:
        sent.extend(submissions)

    await around_submit([Told("a", story), Told("b", story)], innermost)([Submission("id", "add", "[]")])
    assert sent[0].headers == {"a": "was here", "b": "was here"}
    assert story == ["a in", "b in", "b out", "a out"]


async def test_middleware_may_refuse_a_submission() -> None:
    class Closed(Middleware):
        async def submit(self, submissions: Sequence[Submission], call_next: SubmitNext) -> None:
            raise PermissionError("closed today")

    async def innermost(submissions: Sequence[Submission]) -> None:
        raise AssertionError("it must not get here")

    with pytest.raises(PermissionError, match="closed today"):
        await around_submit([Closed()], innermost)([])


async def test_middleware_sees_and_may_replace_a_result_or_an_exception() -> None:
    class Calm(Middleware):
        async def run(self, task: CurrentTask, call_next: RunNext) -> Any:
            try:
                return await call_next(task) * 2
            except ValueError as error:
                return f"calmed: {error}"

    async def fine(task: CurrentTask) -> int:
        return 21

    async def broken(task: CurrentTask) -> int:
        raise ValueError("no")

    task = CurrentTask("id", "add", 1)
    assert await around_run([Calm()], fine)(task) == 42
    assert await around_run([Calm()], broken)(task) == "calmed: no"


async def test_a_middleware_that_overrides_nothing_changes_nothing() -> None:
    async def innermost(task: CurrentTask) -> str:
        return task.id

    assert await around_run([Middleware()], innermost)(CurrentTask("id", "add", 1)) == "id"
    assert await around_run([], innermost)(CurrentTask("id", "add", 1)) == "id"


def test_an_application_adds_and_removes_its_own(added: list[Middleware]) -> None:
    before = list(active_middleware())
    first, second = Told("a", []), Told("b", [])
    for middleware in (first, second):
        add_middleware(middleware)
        added.append(middleware)
    assert list(active_middleware()) == [*before, first, second]
    remove_middleware(added.pop(0))
    assert list(active_middleware()) == [*before, second]


def test_removing_what_was_never_added_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in list"):
        remove_middleware(Middleware())
