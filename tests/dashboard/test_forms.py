"""The form of a task is made from the schema that its worker announces."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from fastworker.function import TaskFunction
from fastworker_dashboard.forms import FormField, form_fields


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(BaseModel):
    width: int


def fields_of(function: Any) -> dict[str, FormField]:
    return {field.name: field for field in form_fields(TaskFunction(function, "one").definition())}


def test_plain_values_are_fields_of_their_kind_and_all_else_is_json() -> None:
    def one(text: str, count: int, share: float, sure: bool, size: Size, names: list[str], anything: Any) -> None: ...

    kinds = {field.name: field.kind for field in fields_of(one).values()}
    assert kinds == {
        "text": "string", "count": "integer", "share": "number", "sure": "boolean", "size": "json", "names": "json",
        "anything": "json",
    }  # fmt: skip
    assert all(field.required for field in fields_of(one).values())


def test_few_values_are_a_choice_wherever_the_schema_has_them() -> None:
    def one(colour: Colour, size: Literal["s", "m"], level: Literal[1, 2] = 1, other: Colour | None = None) -> None: ...

    fields = fields_of(one)
    assert {field.name: field.choices for field in fields.values()} == {
        "colour": ["red", "blue"], "size": ["s", "m"], "level": ["1", "2"], "other": ["red", "blue"],
    }  # fmt: skip
    assert (fields["level"].kind, fields["other"].kind) == ("integer", "string")


def test_what_may_be_none_is_a_plain_field_if_it_may_be_left_empty() -> None:
    def one(must: int | None, may: int | None = None, either: int | str = 1) -> None: ...

    fields = fields_of(one)
    assert (fields["must"].kind, fields["may"].kind, fields["either"].kind) == ("json", "integer", "json")


def test_limits_descriptions_and_secrets_are_taken_from_the_schema() -> None:
    def one(
        count: Annotated[int, Field(ge=1, le=9, description="how many")],
        when: datetime,
        card: Annotated[str, Field(json_schema_extra={"writeOnly": True})],
    ) -> None: ...

    fields = fields_of(one)
    assert (fields["count"].least, fields["count"].most, fields["count"].about) == (1, 9, "how many")
    assert fields["when"].about == "date-time"
    assert fields["card"].secret
