"""A form to submit a task, made from the JSON schema of its parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastworker.tasks import Definition

FieldKind = Literal["string", "integer", "number", "boolean", "json"]
_PLAIN: Final[Mapping[str, FieldKind]] = {
    "string": "string", "integer": "integer", "number": "number", "boolean": "boolean",
}  # fmt: skip
_DEFINITIONS: Final = "#/$defs/"


@dataclass(frozen=True, slots=True)
class FormField:
    """One parameter of a task, as a field of a form.

    Attributes:
        kind: `json` is all that is no plain value.
        choices: the only values there are, if there are few.
        about: what its description says, or the form of the text that is expected.
        least, most: of a number.
        secret: it is not to be seen while somebody types it.
    """

    name: str
    kind: FieldKind
    required: bool
    default: str = ""
    choices: Sequence[str] = ()
    about: str = ""
    least: float | None = None
    most: float | None = None
    secret: bool = False


def form_fields(definition: Definition) -> list[FormField]:
    """A field per parameter of the schema."""
    parameters = definition.parameters
    required = parameters.get("required", [])
    definitions = parameters.get("$defs", {})
    return [
        _field(name, _resolved(schema, definitions), required=name in required)
        for name, schema in parameters.get("properties", {}).items()
    ]


def _field(name: str, schema: Mapping[str, Any], *, required: bool) -> FormField:
    nullable = _without_null(schema) if not required else None
    said = {**schema, **(nullable or {})}
    kind = _PLAIN.get(str(said.get("type")), "json")
    return FormField(
        name,
        kind,
        required,
        _as_text(said["default"], kind) if said.get("default") is not None else "",
        [_as_text(choice, kind) for choice in said.get("enum", ())],
        str(said.get("description") or said.get("format") or ""),
        said.get("minimum"),
        said.get("maximum"),
        secret=bool(said.get("writeOnly")),
    )


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a schema refers to stands in it; what it says itself goes first."""
    name = str(schema.get("$ref", "")).removeprefix(_DEFINITIONS)
    found = {**definitions.get(name, {}), **schema}
    if "anyOf" in found:
        found["anyOf"] = [_resolved(one, definitions) for one in found["anyOf"]]
    return found


def _without_null(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Of one type or null, that type: a field that may be left empty needs no null."""
    others = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    return others[0] if len(others) == 1 else None


def _as_text(value: Any, kind: FieldKind) -> str:
    return value if kind == "string" and isinstance(value, str) else json.dumps(value)
