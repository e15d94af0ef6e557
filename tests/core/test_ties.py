"""The options that tie a task to others: keys, uniqueness, idempotency, upstream failures."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fastworker import ConfigurationError, InvalidArguments, task
from fastworker.function import AnyTaskFunction, TaskFunction
from fastworker.options import SubmitOptions
from fastworker.protocol import Submission
from fastworker.tasks import Ties, is_idempotent_id, is_task_id
from fastworker.ties import LONGEST_KEY


def _send(user_id: int, text: str = "hello") -> None: ...


send: AnyTaskFunction = TaskFunction(_send, "send")


def ties(function: AnyTaskFunction, *args: Any, **kwargs: Any) -> Ties:
    made = function.submission(args, kwargs).ties
    assert made is not None
    return made


def submitted(**said: Any) -> Submission:
    return send.options(**said).submission((7,), {})


# ---- keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["key", "fair_key"])
def test_a_key_is_worked_out_from_the_arguments_at_the_submission(option: str) -> None:
    said: Any = {option: lambda user_id, **_: user_id}
    function = send.options(**said)
    assert getattr(ties(function, 7), option) == "7"
    assert getattr(ties(function, user_id=8, text="bye"), option) == "8"


def test_a_key_may_be_a_text_or_nothing() -> None:
    assert ties(send.options(key="anna"), 7).key == "anna"
    assert ties(send.options(key=lambda *_, **__: None), 7).key is None


def test_no_ties_travel_where_there_are_none() -> None:
    assert send.submission((7,), {}).ties is None


def test_a_key_function_that_raises_is_named_with_its_error() -> None:
    function = send.options(key=lambda user_id: {}[user_id])
    with pytest.raises(InvalidArguments, match="send: the function of key raised KeyError: 7"):
        function.submission((7,), {})


def test_a_key_function_that_does_not_take_the_arguments_is_named() -> None:
    function = send.options(fair_key=lambda: "x")
    with pytest.raises(InvalidArguments, match="send: the function of fair_key raised TypeError"):
        function.submission((7,), {})


def test_a_key_whose_text_raises_is_named() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(InvalidArguments, match="raised RuntimeError: no text"):
        send.options(key=lambda *_: Mute()).submission((7,), {})


def test_a_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidArguments, match=f"key has {LONGEST_KEY + 1} characters; {LONGEST_KEY} are the most"):
        send.options(key=lambda *_: "x" * (LONGEST_KEY + 1)).submission((7,), {})
    assert ties(send.options(key=lambda *_: "x" * LONGEST_KEY), 7).key == "x" * LONGEST_KEY


# ---- uniqueness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "while_"),
    [("queued", "queued"), ("running", "running"), (True, "running"), (60, 60.0), (timedelta(minutes=2), 120.0)],
)
def test_how_long_a_task_is_unique(said: Any, while_: object) -> None:
    assert ties(send.options(unique=said), 7).unique_while == while_


def test_the_same_arguments_make_the_same_task_however_they_are_written() -> None:
    unique = send.options(unique=True)
    same = {ties(unique, 7, "x").unique, ties(unique, user_id=7, text="x").unique, ties(unique, 7, text="x").unique}
    assert len(same) == 1
    assert ties(unique, 8, "x").unique not in same
    assert ties(unique, 7, "y").unique not in same


def test_another_key_than_the_arguments_can_make_two_tasks_the_same() -> None:
    unique = send.options(unique=True, unique_key=lambda user_id, *_: user_id)
    assert ties(unique, 7, "x").unique == ties(unique, 7, "y").unique == "send:7"
    assert ties(unique, 8, "x").unique == "send:8"


def test_tasks_of_different_names_are_never_the_same() -> None:
    other: TaskFunction[..., None, None] = TaskFunction(send.function, "post")
    assert ties(other.options(unique=True), 7).unique != ties(send.options(unique=True), 7).unique


def test_what_is_said_for_one_submission_goes_before_the_definition() -> None:
    @task(unique="running", on_duplicate="reject", key="all")
    def guarded() -> None: ...

    made = ties(guarded.options(on_duplicate="replace"))
    assert (made.unique_while, made.on_duplicate, made.key) == ("running", "replace", "all")


# ---- idempotency -----------------------------------------------------------------------------------------------------


def test_an_idempotency_key_makes_the_id() -> None:
    first, second = submitted(idempotency_key="order 7"), submitted(idempotency_key="order 7")
    assert first.id == second.id
    assert is_task_id(first.id)
    assert is_idempotent_id(first.id)
    assert first.again  # the store is to be asked
    assert submitted(idempotency_key="order 8").id != first.id
    assert not is_idempotent_id(submitted().id)


def test_the_same_idempotency_key_under_another_name_is_another_task() -> None:
    other: TaskFunction[..., None, None] = TaskFunction(send.function, "post")
    ids = {function.options(idempotency_key="k").submission((7,), {}).id for function in (send, other)}
    assert len(ids) == 2


# ---- bad input -------------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, object]] = [
    ("key", ""), ("key", 5), ("key", "x" * (LONGEST_KEY + 1)), ("fair_key", b"x"), ("unique_key", 0.0),
    ("unique", "always"), ("unique", 0), ("unique", -1), ("unique", float("inf")), ("unique", float("nan")),
    ("unique", False), ("unique", timedelta(0)), ("on_duplicate", "ignore"), ("idempotency_key", ""),
    ("idempotency_key", 7), ("idempotency_key", "x" * (LONGEST_KEY + 1)), ("on_upstream_failure", "retry"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_a_wrong_option_is_named_with_what_it_may_be(option: str, value: object) -> None:
    assert option in SubmitOptions.__annotations__
    said: Any = {option: value}
    with pytest.raises(ConfigurationError, match=rf"send: {option}=.*use "):
        send.options(**said)


def test_an_idempotency_key_belongs_to_one_submission() -> None:
    said: Any = {"idempotency_key": "x"}
    with pytest.raises(ConfigurationError, match="there is no option 'idempotency_key'"):
        task(**said)(lambda: None)
