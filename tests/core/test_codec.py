"""Arguments and results cross the wire and come out as what the annotations say."""

from __future__ import annotations

import contextlib
import enum
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from fastworker.codec import Signature, encode_untyped, write_json
from fastworker.errors import InvalidArguments, NotSerializable, PayloadTooLarge, TaskDefinitionError
from fastworker.protocol import MAX_PAYLOAD_BYTES

MOMENT = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
KEY = UUID("0190b7e2-7c1d-7cc3-98c4-dc0c0c07398f")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Line:
    product: str
    price: Decimal
    seal: bytes = b""


@dataclass
class Order:
    id: UUID
    lines: list[Line] = field(default_factory=list)


class Customer(BaseModel):
    name: str
    since: date
    colours: set[Colour] = set()


class Address(TypedDict):
    street: str
    number: int


class Point(NamedTuple):
    x: float
    y: float


def signature(function: Callable[..., Any]) -> Signature:
    return Signature(function, function.__name__)


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the function through the wire: encode, then decode in "another process", then call."""
    payload = signature(function).encode(args, kwargs)
    json.loads(payload)  # whoever looks at it may read it with any JSON parser
    positions, keywords = signature(function).decode(payload)
    return function(*positions, **keywords)


def through(annotation: Any, value: Any) -> Any:
    """The value after it was an argument of this annotation."""

    def echo(value: Any) -> Any:
        return value

    echo.__annotations__ = {"value": annotation}
    return call(echo, value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 42),
        (int, 2**80),
        (float, 0.1),
        (bool, True),
        (str, "später ✓ \x00 \u2028"),
        (None, None),
        (bytes, bytes(range(256))),
        (bytes, b""),
        (datetime, MOMENT),
        (date, date(2026, 2, 28)),
        (timedelta, timedelta(days=1, microseconds=3)),
        (UUID, KEY),
        (Decimal, Decimal("19.990")),
        (Colour, Colour.RED),
        (Level, Level.HIGH),
        (Literal["a", "b"], "b"),
        (list[UUID], [KEY, KEY]),
        (dict[UUID, datetime], {KEY: MOMENT}),
        (dict[int, bytes], {1: b"\xff"}),
        (set[int], {1, 2, 3}),
        (frozenset[Colour], frozenset({Colour.BLUE})),
        (tuple[int, str, bytes], (1, "a", b"\xfe")),
        (tuple[Decimal, ...], (Decimal(1), Decimal("0.5"))),
        (Line, Line("bolt", Decimal("0.20"), b"\xff\x00")),
        (Order, Order(KEY, [Line("nut", Decimal(1)), Line("bolt", Decimal("0.2"))])),
        (Customer, Customer(name="Ada", since=date(1843, 7, 10), colours={Colour.BLUE})),
        (list[Customer | Line], [Line("a", Decimal(1)), Customer(name="b", since=date(2020, 1, 1))]),
        (Address, {"street": "Main", "number": 5}),
        (Point, Point(1.5, -2.0)),
        (dict[str, list[tuple[int, Order]]], {"a": [(1, Order(KEY))]}),
        (int | None, None),
        (int | None, 3),
        (int | str, "3"),
        (datetime | None, MOMENT),
        (UUID | int, KEY),
        (Annotated[int, Field(gt=0)], 1),
        (Any, {"nested": [1, 2.5, None, {"deep": True}]}),
    ],
)
def test_a_value_comes_out_as_it_went_in(annotation: Any, value: Any) -> None:
    received = through(annotation, value)
    assert received == value
    assert type(received) is type(value)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_does_not_know_survive(number: float) -> None:
    assert repr(through(float, number)) == repr(number)
    assert repr(through(Any, number)) == repr(number)
    assert repr(through(list[float], [number])[0]) == repr(number)


def test_values_without_an_annotation_arrive_as_plain_json_data() -> None:
    def anything(value: Any) -> Any:
        return value

    assert call(anything, MOMENT) == "2026-03-01T12:30:15.250000Z"
    assert call(anything, (1, KEY)) == [1, str(KEY)]
    assert call(anything, Line("bolt", Decimal("0.20"))) == {"product": "bolt", "price": "0.20", "seal": ""}


# ---- how parameters are written --------------------------------------------------------------------------------


def everything(first: int, /, second: str = "two", *rest: bytes, key: UUID | None = None, **more: Decimal) -> Any:
    return first, second, rest, key, more


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1,), {}),
        ((1, "b"), {}),
        ((1,), {"second": "b"}),
        ((1, "b", b"\xff", b""), {}),
        ((1,), {"key": KEY}),
        ((1, "b", b"c"), {"key": KEY, "price": Decimal("1.5"), "tax": Decimal(0)}),
        ((1,), {"first": Decimal(7)}),  # a keyword may share the name of a positional-only parameter
    ],
)
def test_every_kind_of_parameter_arrives(args: Any, kwargs: Any) -> None:
    assert call(everything, *args, **kwargs) == everything(*args, **kwargs)


def test_defaults_are_the_functions_own_and_do_not_travel() -> None:
    marker = object()

    def greet(name: str, salute: Any = marker) -> Any:
        return name, salute

    assert signature(greet).encode(("Ada",), {}) == '{"name":"Ada"}'
    assert call(greet, "Ada") == ("Ada", marker)


def test_the_same_call_is_the_same_json_however_it_is_written() -> None:
    def move(x: int, y: int = 0) -> None: ...

    said = signature(move).encode((1, 2), {})
    assert said == signature(move).encode((1,), {"y": 2}) == signature(move).encode((), {"y": 2, "x": 1})


def test_names_of_parameters_may_be_anything_that_python_allows() -> None:
    def odd(self: int, cls: int, args: int, model_config: int, _hidden: int, größe: int, items: int) -> Any:
        return self, cls, args, model_config, _hidden, größe, items

    assert call(odd, 1, 2, 3, 4, 5, 6, items=7) == (1, 2, 3, 4, 5, 6, 7)


def test_a_function_without_parameters_takes_nothing() -> None:
    def nothing() -> str:
        return "done"

    assert call(nothing) == "done"


# ---- by name: a client that does not know the signature ------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1,), {}),
        ((1, "b", b"\xff"), {}),
        ((1,), {"second": "b", "key": KEY, "price": Decimal("1.5")}),
        ((1, "b", b"\xfe\xff"), {"key": KEY}),
    ],
)
def test_a_submission_by_name_is_bound_in_the_worker(args: Any, kwargs: Any) -> None:
    payload = encode_untyped(args, kwargs, "everything")
    positions, keywords = signature(everything).decode(payload)
    assert everything(*positions, **keywords) == everything(*args, **kwargs)


def test_the_forms_by_name_are_arrays_and_objects_with_a_star() -> None:
    assert encode_untyped((1, "a"), {}, "f") == '[1,"a"]'
    assert encode_untyped((), {}, "f") == "[]"
    assert encode_untyped((1,), {"b": 2}, "f") == '{"*":[1],"b":2}'
    assert encode_untyped((), {"b": 2}, "f") == '{"*":[],"b":2}'


def test_numbers_that_json_does_not_know_survive_by_name() -> None:
    def measure(value: float) -> float:
        return value

    payload = encode_untyped((math.inf,), {}, "measure")
    assert signature(measure).decode(payload) == ([], {"value": math.inf})


@pytest.mark.parametrize(
    "payload", ["", "[1,", '{"*":', '{"*":[1],"b":', "[" * 100_000, '["\\ud800"]', "null", "5", "x"]
)
def test_arguments_that_cannot_be_read_are_invalid_arguments(payload: str) -> None:
    def add(a: int, b: int = 0) -> int:
        return a + b

    with pytest.raises(InvalidArguments, match="add"):
        signature(add).decode(payload)


@pytest.mark.parametrize("payload", ['{"*":5}', '{"*":{"a":1}}', '{"*":"xy","b":1}', '{"*":null}'])
def test_a_star_that_holds_no_positions_is_refused_and_not_guessed(payload: str) -> None:
    def say(a: str, b: Any = None) -> str:
        return a

    with pytest.raises(InvalidArguments, match="say"):
        signature(say).decode(payload)


# ---- what does not fit ---------------------------------------------------------------------------------------


def charge(order: int, amount: Decimal, *, note: str = "") -> None: ...


def test_wrong_arguments_are_all_named_in_one_error_together_with_the_signature() -> None:
    with pytest.raises(InvalidArguments) as caught:
        signature(charge).encode(("abc",), {"amount": "much", "nots": "typo"})
    assert str(caught.value).splitlines() == [
        "the arguments don't fit charge(order: 'int', amount: 'Decimal', *, note: 'str' = '') -> 'None'",
        "  order: Input should be a valid integer, unable to parse string as an integer (given: 'abc')",
        "  amount: Input should be a valid decimal (given: 'much')",
        "  nots: Extra inputs are not permitted (given: 'typo')",
    ]


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "order: Field required"),
        ((1,), {}, "amount: Field required"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1, 2), {"order": 1}, "multiple values for argument 'order'"),
        ((1, 2), {"tip": 1}, "tip: Extra inputs are not permitted"),
    ],
)
def test_a_call_that_python_would_refuse_is_refused(args: Any, kwargs: Any, text: str) -> None:
    with pytest.raises(InvalidArguments, match="charge") as caught:
        signature(charge).encode(args, kwargs)
    assert text in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_nested_mistakes_are_named_by_their_path() -> None:
    def ship(order: Order) -> None: ...

    with pytest.raises(InvalidArguments, match=r"order\.lines\.1\.price: Field required"):
        signature(ship).encode(({"id": str(KEY), "lines": [{"product": "a", "price": 1}, {"product": "b"}]},), {})


def test_an_argument_that_cannot_even_be_shown_is_still_refused_politely() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    def count(n: int) -> None: ...

    with pytest.raises(InvalidArguments, match="<Rude that can't be shown>"):
        signature(count).encode((Rude(),), {})


def test_a_long_wrong_argument_is_cut_in_the_message() -> None:
    def count(n: int) -> None: ...

    with pytest.raises(InvalidArguments) as caught:
        signature(count).encode(("x" * 10_000,), {})
    assert len(str(caught.value)) < 300


def test_the_worker_checks_what_a_client_by_name_could_not() -> None:
    with pytest.raises(InvalidArguments, match="amount: Input should be a valid decimal"):
        signature(charge).decode('[1,"much"]')
    with pytest.raises(InvalidArguments, match="multiple values for argument 'order'"):
        signature(charge).decode('{"*":[1,"2"],"order":3}')


@pytest.mark.parametrize(
    "value",
    [object(), {1: object()}, lambda: None, "\ud800", iter],
    ids=["object", "nested", "lambda", "surrogate", "builtin"],
)
def test_a_value_without_a_json_form_is_named_not_serializable(value: Any) -> None:
    def anything(value: Any) -> None: ...

    with pytest.raises(NotSerializable, match="the arguments of anything"):
        signature(anything).encode((value,), {})
    with pytest.raises(NotSerializable, match="the arguments of anything"):
        encode_untyped((value,), {}, "anything")


def test_a_value_that_contains_itself_is_not_serializable() -> None:
    def anything(value: Any) -> None: ...

    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotSerializable):
        signature(anything).encode((loop,), {})


def test_the_limit_counts_bytes_and_names_them() -> None:
    fits = "x" * (MAX_PAYLOAD_BYTES - 2)
    assert len(write_json(lambda: json.dumps(fits).encode(), "it")) == MAX_PAYLOAD_BYTES
    with pytest.raises(PayloadTooLarge, match=r"it take 7,340,033 bytes, over the limit of 7,340,032"):
        write_json(lambda: json.dumps(fits + "x").encode(), "it")
    with pytest.raises(PayloadTooLarge):  # few characters, many bytes
        write_json(lambda: ('"' + "€" * (MAX_PAYLOAD_BYTES // 3 + 1) + '"').encode(), "it")


def test_arguments_and_results_have_the_same_limit() -> None:
    def anything(value: Any) -> Any: ...

    big = "x" * MAX_PAYLOAD_BYTES
    with pytest.raises(PayloadTooLarge, match="the arguments of anything"):
        signature(anything).encode((big,), {})
    with pytest.raises(PayloadTooLarge, match="the result of anything"):
        signature(anything).encode_result(big)


# ---- definitions ---------------------------------------------------------------------------------------------


def test_an_annotation_that_cannot_be_resolved_names_the_task() -> None:
    def lost(value: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TaskDefinitionError, match=r"task lost: an annotation can't be resolved: .*Missing"):
        signature(lost)


def test_an_annotation_without_a_json_form_names_the_task() -> None:
    def wire(value: int) -> None: ...

    class Socket: ...

    wire.__annotations__ = {"value": Socket}
    with pytest.raises(TaskDefinitionError, match=r"task wire: an annotation has no JSON form: .*Socket'>$"):
        signature(wire)


def test_the_schema_of_the_parameters_is_json_schema() -> None:
    schema = signature(charge).json_schema()
    assert schema["properties"]["order"] == {"title": "Order", "type": "integer"}
    assert schema["required"] == ["order", "amount"]
    assert schema["additionalProperties"] is False


def test_a_parameter_that_has_no_schema_does_not_stop_the_definition() -> None:
    def strange(value: Callable[[], None]) -> None: ...

    assert signature(strange).json_schema() == {"type": "object"}


# ---- results -------------------------------------------------------------------------------------------------


def returned(annotation: Any, value: Any) -> Any:
    def work() -> Any: ...

    work.__annotations__ = {"return": annotation}
    return signature(work).decode_result(signature(work).encode_result(value))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (None, None),
        (bytes, b"\xff"),
        (datetime, MOMENT),
        (Order, Order(KEY, [Line("a", Decimal("1.0"), b"\xfe")])),
        (Customer, Customer(name="Ada", since=date(1843, 7, 10))),
        (tuple[UUID, Decimal], (KEY, Decimal("1.10"))),
        (dict[str, float], {"a": math.inf}),
    ],
)
def test_a_result_has_the_annotated_type(annotation: Any, value: Any) -> None:
    assert returned(annotation, value) == value


def test_a_result_that_belies_its_annotation_is_sent_as_it_is_and_found_out_by_the_reader() -> None:
    def lie() -> int:
        return "not a number"  # type: ignore[return-value]

    sent = signature(lie).encode_result(lie())
    assert sent == '"not a number"'
    with pytest.raises(ValidationError, match="valid integer"):
        signature(lie).decode_result(sent)


@pytest.mark.parametrize("annotation", [int, Any, list[int], Line, Customer])
def test_a_result_without_a_json_form_is_named(annotation: Any) -> None:
    def work() -> Any: ...

    work.__annotations__ = {"return": annotation}
    with pytest.raises(NotSerializable, match="the result of work can't be written as JSON"):
        signature(work).encode_result(object())


def test_a_serializer_of_the_users_own_may_raise_anything() -> None:
    class Sour(BaseModel):
        value: int = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "__dict__":
                raise KeyError("sour")
            return super().__getattribute__(name)

    def work() -> Any: ...

    with pytest.raises(NotSerializable, match="the result of work"):
        signature(work).encode_result({"deep": [Sour.model_construct()]})


# ---- any value at all ----------------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(plain)
def test_plain_data_round_trips_typed_and_by_name(value: Any) -> None:
    def echo(value: Any) -> Any: ...

    assert signature(echo).decode(signature(echo).encode((value,), {})) == ([], {"value": value})
    assert signature(echo).decode(encode_untyped((value,), {}, "echo")) == ([], {"value": value})
    assert signature(echo).decode(encode_untyped((), {"value": value}, "echo")) == ([], {"value": value})
    assert signature(echo).decode_result(signature(echo).encode_result(value)) == value


orders = st.builds(
    Order,
    id=st.uuids(),
    lines=st.lists(
        st.builds(
            Line,
            product=st.text(),
            price=st.decimals(allow_nan=False, allow_infinity=False),
            seal=st.binary(),
        ),
        max_size=3,
    ),
)


def file_away(
    order: Order, /, when: datetime, *codes: bytes, colour: Colour | None = None, **stock: dict[int, Decimal]
) -> Any: ...


@given(
    orders,
    st.datetimes(timezones=st.just(UTC)),
    st.lists(st.binary(), max_size=3),
    st.none() | st.sampled_from(Colour),
    st.dictionaries(
        st.sampled_from(["a", "b", "order"]),
        st.dictionaries(st.integers(), st.decimals(allow_nan=False, allow_infinity=False), max_size=2),
        max_size=2,
    ),
)
def test_typed_arguments_round_trip(order: Order, when: datetime, codes: list[bytes], colour: Any, stock: Any) -> None:
    wire = signature(file_away)
    args, kwargs = (order, when, *codes), {"colour": colour, **stock}
    assert wire.decode(wire.encode(args, kwargs)) == (list(args), kwargs)


@given(st.text(), st.none() | st.integers())
def test_no_text_at_all_breaks_the_decoder(payload: str, n: int | None) -> None:
    """Whatever a stranger sends as arguments: it fits, or it is invalid arguments."""

    def strict(a: int, b: str = "") -> None: ...

    for text in (
        payload,
        "[" + payload,
        '{"*":' + payload,
        json.dumps([payload, n]),
        json.dumps({"a": n, "b": payload}),
    ):
        with contextlib.suppress(InvalidArguments):
            signature(strict).decode(text)
