"""A handle is a value: where it may stand, and what comes in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastworker import InvalidArguments, TaskHandle, UpstreamFailure
from fastworker.codec import Signature
from fastworker.upstream import LEFT_OUT, RESULT, encode_call, encode_call_by_name, fill_in

A, B = TaskHandle[Any]("id-a"), TaskHandle[Any]("id-b")


def total(first: int, rest: Any = None, *more: int, named: dict[str, int] | None = None, **others: int) -> None:
    """Has an argument of every kind."""


SIGNATURE = Signature(total, "total")


def received(inputs: dict[str, str], *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """What the function gets of a call, as a client that knows the signature writes it."""
    payload, needs = encode_call(SIGNATURE, args, kwargs)
    assert set(needs) == set(inputs)
    return SIGNATURE.decode(fill_in(payload, inputs, "the arguments") if inputs else payload)


def received_by_name(inputs: dict[str, str], *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """The same of a call by name."""
    payload, needs = encode_call_by_name("total", args, kwargs)
    assert set(needs) == set(inputs)
    return SIGNATURE.decode(fill_in(payload, inputs, "the arguments") if inputs else payload)


BOTH = pytest.mark.parametrize("call", [received, received_by_name])


# ---- where a handle may stand ----------------------------------------------------------------------------------------


@BOTH
def test_a_handle_may_stand_in_any_position(call: Any) -> None:
    assert call({"id-a": "1", "id-b": "2"}, A, [B, 3], B, 4) == ([1, [2, 3], 2, 4], {})


@BOTH
def test_a_handle_may_be_a_keyword(call: Any) -> None:
    args, kwargs = call({"id-a": "1", "id-b": "[2]"}, first=A, rest=B, other=A)
    assert {**dict(zip(("first", "rest"), args, strict=False)), **kwargs} == {"first": 1, "rest": [2], "other": 1}


@BOTH
def test_handles_may_stand_in_lists_tuples_and_dicts(call: Any) -> None:
    assert call({"id-a": "1", "id-b": "2"}, 0, (A, B), named={"x": A, "y": 5}) == (
        [0, [1, 2]],
        {"named": {"x": 1, "y": 5}},
    )


def test_what_is_needed_is_named_once_and_in_order() -> None:
    _, needs = encode_call_by_name("total", [B, [A, B]], {"x": {"y": A}})
    assert needs == ("id-b", "id-a")


def test_arguments_without_a_handle_are_checked_at_the_call() -> None:
    with pytest.raises(InvalidArguments, match="first"):
        encode_call(SIGNATURE, ("one",), {"rest": [A]})
    with pytest.raises(InvalidArguments, match="multiple values"):
        encode_call(SIGNATURE, (A,), {"first": 1})
    with pytest.raises(InvalidArguments, match="missing a required argument"):
        encode_call(Signature(lambda x, /, y: None, "f"), (A,), {})


def test_a_result_that_does_not_fit_is_refused_in_the_worker() -> None:
    with pytest.raises(InvalidArguments, match="first"):
        received({"id-a": '"one"'}, A)


def test_a_handle_is_not_its_id() -> None:
    """A handle is a text as well; as an argument it stands for the result."""
    payload, needs = encode_call_by_name("echo", [A], {})
    assert (json.loads(payload), needs) == ([{RESULT: "id-a"}], ("id-a",))
    assert encode_call_by_name("echo", [A.id], {}) == ('["id-a"]', ())


# ---- upstream failures -----------------------------------------------------------------------------------------------


@BOTH
def test_what_is_ignored_is_left_out_of_lists_and_dicts(call: Any) -> None:
    inputs = {"id-a": LEFT_OUT, "id-b": "2"}
    assert call(inputs, 0, [A, B, 3], named={"x": A, "y": B}) == ([0, [2, 3]], {"named": {"y": 2}})


def test_what_is_ignored_and_stands_alone_is_null() -> None:
    inputs = {"id-a": LEFT_OUT}
    assert json.loads(fill_in('{"first": {"$result": "id-a"}, "x": 1}', inputs, "")) == {"first": None, "x": 1}
    assert json.loads(fill_in('[{"$result": "id-a"}, 1]', inputs, "")) == [None, 1]
    assert json.loads(fill_in('{"*": [{"$result": "id-a"}, 1], "x": {"$result": "id-a"}}', inputs, "")) == {
        "*": [None, 1],
        "x": None,
    }


def test_a_description_of_the_failure_comes_as_the_annotated_type() -> None:
    def cope(outcome: int | UpstreamFailure) -> None: ...

    signature = Signature(cope, "cope")
    payload, _ = encode_call(signature, (A,), {})
    failure = '{"task":"id-a","name":"add","state":"failed","type":"builtins.ValueError","message":"no"}'
    expected = UpstreamFailure("id-a", "add", "failed", "builtins.ValueError", "no")
    assert signature.decode(fill_in(payload, {"id-a": failure}, "")) == ([], {"outcome": expected})
    assert signature.decode(fill_in(payload, {"id-a": "7"}, "")) == ([], {"outcome": 7})


# ---- user data that looks like a placeholder -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [{RESULT: "another id"}, {RESULT: "id-a", "more": 1}, {RESULT: ["id-a"]}, {RESULT: {"x": 1}}, {RESULT: None}, {}],
)
def test_user_data_that_looks_like_a_placeholder_stays_as_it_is(data: Any) -> None:
    payload, _ = encode_call_by_name("echo", [A, data, [data]], {})
    assert json.loads(fill_in(payload, {"id-a": "1"}, "")) == [1, data, [data]]


def test_a_result_that_looks_like_a_placeholder_is_not_filled_in_again() -> None:
    payload, _ = encode_call_by_name("echo", [A, B], {})
    inputs = {"id-a": '{"$result": "id-b"}', "id-b": "2"}
    assert json.loads(fill_in(payload, inputs, "")) == [{RESULT: "id-b"}, 2]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, VALUES)
def test_any_data_passes_beside_a_handle_and_through_one(data: Any, result: Any) -> None:
    payload, _ = encode_call_by_name("echo", [A, data], {"keyword": [A]})
    filled = json.loads(fill_in(payload, {"id-a": json.dumps(result)}, ""))
    assert filled == {"*": [result, data], "keyword": [result]}
