"""What a task should get of those that it needs: the rules of the documentation, written down a second time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from fastworker.lifecycle import State
from fastworker.tasks import OnUpstreamFailure
from fastworker.upstream import RESULT

LEFT_OUT = object()
"""The result of a task that did not succeed, for one that ignores that."""
ERRORS = {"builtins.ValueError", "fastworker.WorkerLost", "fastworker.UpstreamFailed"}
"""With which a task can have failed."""


@dataclass(frozen=True)
class End:
    """How a task has ended."""

    task_id: str
    name: str
    state: State
    result: str | None


def arguments(template: list[Any], got: Mapping[str, End], policy: OnUpstreamFailure) -> list[Any]:
    """The positions with results in their places; an `End` stands for a description of it, None for what is ignored."""
    filled = [_filled(item, got, policy) for item in template]
    return [None if item is LEFT_OUT else item for item in filled]


def _filled(value: Any, got: Mapping[str, End], policy: OnUpstreamFailure) -> Any:
    if isinstance(value, dict) and set(value) == {RESULT}:
        end = got[value[RESULT]]
        if end.state is State.SUCCEEDED:
            return from_json(end.result or "")
        return end if policy == "run" else LEFT_OUT
    if isinstance(value, list):
        return [part for item in value if (part := _filled(item, got, policy)) is not LEFT_OUT]
    if isinstance(value, dict):
        parts = {key: _filled(item, got, policy) for key, item in value.items()}
        return {key: part for key, part in parts.items() if part is not LEFT_OUT}
    return value


def matches(actual: Any, expected: Any) -> bool:
    """Whether these are the arguments."""
    if isinstance(expected, End):
        return isinstance(actual, dict) and _describes(actual, expected)
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(matches, actual, expected))
    if isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(matches(actual[key], expected[key]) for key in actual)
    return bool(actual == expected)


def _describes(actual: dict[str, Any], end: End) -> bool:
    right = (actual.get("task"), actual.get("name"), actual.get("state")) == (end.task_id, end.name, end.state.value)
    return right and (end.state is not State.FAILED or actual.get("type") in ERRORS)
