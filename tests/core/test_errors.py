"""One tree of errors, drawn at the top of its module."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from fastworker import errors
from fastworker.errors import FastWorkerError, Refused, TaskCrashed, TaskExpired, TaskFailed, TaskTimeout

CLASSES = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
}


def drawn() -> dict[str, str | None]:
    """Each error in the docstring's drawing, with its parent there."""
    found: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^(?P<branch>(?:[│ ] {3})*(?:[├└]── )?)(?P<name>[A-Z]\w+)(?:  |$)", line)
        if match is None:
            continue
        depth = len(match["branch"]) // 4
        path[depth:] = [match["name"]]
        found[match["name"]] = path[depth - 1] if depth else None
    return found


def test_the_drawing_is_the_tree() -> None:
    assert drawn() == {
        name: None if value is FastWorkerError else value.__bases__[0].__name__ for name, value in CLASSES.items()
    }


def test_every_error_of_the_library_is_in_the_tree() -> None:
    assert all(issubclass(value, FastWorkerError) for value in CLASSES.values())


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_says_what_it_means(name: str) -> None:
    assert inspect.getdoc(CLASSES[name]) != inspect.getdoc(CLASSES[name].__bases__[0])


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InvalidArguments, TypeError),
        (errors.NotSerializable, ValueError),
        (errors.PayloadTooLarge, ValueError),
        (errors.ConnectionFailed, ConnectionError),
        (errors.TaskTimeout, TimeoutError),
        (errors.ResultTimeout, TimeoutError),
        (errors.ResultTypeError, TypeError),
        (errors.TaskNotFound, LookupError),
    ],
)
def test_code_that_knows_only_pythons_own_errors_catches_ours(error: type, builtin: type) -> None:
    assert issubclass(error, builtin)


def test_the_time_limit_of_a_task_is_not_the_time_limit_of_waiting_for_it() -> None:
    assert not issubclass(errors.TaskTimeout, errors.ResultTimeout)
    assert not issubclass(errors.ResultTimeout, errors.TaskError)


def test_an_error_without_words_says_its_own_meaning() -> None:
    assert str(TaskTimeout()) == "The task ran longer than its time limit."
    assert str(TaskExpired("it was late", "id-1")) == "it was late"


def test_a_failure_shows_the_remote_traceback() -> None:
    error = TaskFailed("task id-1 failed", "id-1", "builtins.ValueError", "no", "Traceback: line 5")
    assert str(error) == "task id-1 failed\n\nTraceback: line 5"
    assert str(TaskFailed("task id-1 failed")) == "task id-1 failed"


@pytest.mark.parametrize(
    "error",
    [
        TaskFailed("m", "id", "builtins.ValueError", "no", "Traceback"),
        TaskCrashed("m", "id", "t", "m", "tb"),
        TaskTimeout("m", "id"),
        errors.ResultTypeError("m", "id", {"a": 1}),
        Refused("m", "malformed"),
        errors.NoControlPlane("m"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: Exception) -> None:
    """A result may be awaited in a process pool."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
