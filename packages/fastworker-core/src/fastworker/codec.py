"""Arguments and results: from Python to JSON and back, by the annotations of the task function.

Arguments travel as one JSON value in one of three forms. An object holds a value per parameter, as bound by a client
that knows the signature. An array holds positions; an object that begins with the key `"*"` holds positions under it
and keywords beside it: these two come from submissions by name and are bound in the worker.

What the annotations allow comes out as the annotated type: datetime, UUID, Decimal, bytes, enums, dataclasses, pydantic
models and containers of them. Values without an annotation are plain JSON data.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NotRequired, Required, TypeAliasType, TypedDict, get_args, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from fastworker.errors import InvalidArguments, NotSerializable, PayloadTooLarge, TaskDefinitionError
from fastworker.protocol import MAX_PAYLOAD_BYTES
from fastworker.resources import FromWorker

POSITIONS: Final = "*"
"""The key under which positions stand beside keywords."""
_UNBOUND: Final = ("[", '{"*":')
_CONFIG = ConfigDict(
    extra="forbid",
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="constants",
)
_KINDS_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Signature:
    """The arguments and the result of one task function.

    Attributes:
        resources: the parameters that the worker fills in, with their types. They are not submitted.

    Raises:
        TaskDefinitionError: an annotation can't be resolved or has no JSON form.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.name = name
        self._signature = inspect.signature(function)
        self._hints = hints = _hints(function, name)
        given = [p for p in self._signature.parameters.values() if isinstance(p.default, FromWorker)]
        self.resources = {p.name: hints.get(p.name, Any) for p in given}
        if given:
            submitted = [p for p in self._signature.parameters.values() if p.name not in self.resources]
            self._signature = self._signature.replace(parameters=submitted)
        parameters = self._signature.parameters.values()
        self._positional = tuple(p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._plain = all(p.kind in _KINDS_BY_NAME for p in parameters)
        self._arguments = _adapter(_arguments_type(parameters, hints), name)
        part, result = _returned(function, hints.get("return", Any))
        self._result: TypeAdapter[Any] = _adapter(result, name)
        self._part: TypeAdapter[Any] = _adapter(part, name) if part is not result else self._result

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Validate arguments and write them as JSON.

        Raises:
            InvalidArguments: they don't fit the signature.
            NotSerializable: a value has no JSON form.
            PayloadTooLarge: the JSON is larger than `MAX_PAYLOAD_BYTES`.
        """
        return self._encode(self._arguments, self.bind(args, kwargs))

    def encode_partly(self, values: Mapping[str, Any], open_values: Mapping[str, Any]) -> str:
        """Write arguments as JSON of which some are not known yet: `open_values` stand as they are.

        Args:
            values: by parameter name; validated, where they are there.
        """
        known = from_json(self._encode(self._some_arguments, values))
        return encode_untyped((), {**known, **open_values}, self.name, positions=False)

    def _encode(self, adapter: TypeAdapter[Any], values: Mapping[str, Any]) -> str:
        try:
            checked = adapter.validate_python(values)
        except ValidationError as error:
            raise self._invalid(error) from None
        return write_json(lambda: adapter.dump_json(checked), f"the arguments of {self.name}")

    @cached_property
    def _some_arguments(self) -> TypeAdapter[Any]:
        """The arguments, none of them required."""
        return _adapter(_arguments_type(self._signature.parameters.values(), self._hints, partly=True), self.name)

    def decode(self, payload: str) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments for the function, as the annotated types.

        Raises:
            InvalidArguments: they don't fit the signature.
        """
        try:
            if payload.startswith(_UNBOUND):
                payload = self._bind(payload)
            values = self._arguments.validate_json(payload)
        except ValidationError as error:
            raise self._invalid(error) from None
        if self._plain:
            return [], values
        bound = inspect.BoundArguments(self._signature, values)
        return list(bound.args), bound.kwargs

    def encode_result(self, value: Any) -> str:
        """Write a result as JSON.

        Raises:
            NotSerializable: it has no JSON form.
            PayloadTooLarge: the JSON is larger than `MAX_PAYLOAD_BYTES`.
        """
        return write_json(lambda: self._result.dump_json(value, warnings=False), f"the result of {self.name}")

    def encode_part(self, value: Any) -> str:
        """Write a part that the task yields as JSON. Raises what `encode_result` raises."""
        return write_json(lambda: self._part.dump_json(value, warnings=False), f"a part of {self.name}")

    def decode_part(self, payload: str) -> Any:
        """A part as the annotated type; raises pydantic's `ValidationError` if it is of another."""
        return self._part.validate_json(payload)

    def decode_result(self, payload: str) -> Any:
        """The result as the annotated type; raises pydantic's `ValidationError` if it is of another."""
        return self._result.validate_json(payload)

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments, as an object of keywords."""
        try:
            return self._arguments.json_schema()
        except PydanticUserError:
            return {"type": "object"}

    def __str__(self) -> str:
        return f"{self.name}{self._signature}"

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by parameter name; raises `InvalidArguments` if they are too many or too few."""
        if self._plain and len(args) <= len(self._positional):
            values = dict(zip(self._positional, args, strict=False))
            if values.keys().isdisjoint(kwargs):
                values.update(kwargs)
                return values
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidArguments(f"{self}: {error}") from None

    def _bind(self, payload: str) -> str:
        try:
            said = from_json(payload)
        except ValueError as error:
            raise InvalidArguments(f"the arguments of {self} are not JSON: {error}") from None
        match said:
            case list() as args:
                return json.dumps(self.bind(args, {}))
            case {"*": list() as args, **kwargs}:
                return json.dumps(self.bind(args, {str(name): value for name, value in kwargs.items()}))
            case _:
                raise InvalidArguments(f'{self}: under "*" stands an array, the positional arguments')

    def _invalid(self, error: ValidationError) -> InvalidArguments:
        problems = []
        for item in error.errors(include_url=False, include_context=False):
            where = ".".join(str(part) for part in item["loc"])
            given = "" if item["type"] == "missing" else f" (given: {_short(item['input'])})"
            problems.append(f"  {where or 'arguments'}: {item['msg']}{given}")
        return InvalidArguments("\n".join([f"the arguments don't fit {self}", *problems]))


def described(name: str, payload: str) -> str:
    """Encoded arguments as the call that they are, with the kinds of the values: for whoever has another signature."""
    try:
        said = from_json(payload)
    except ValueError:
        return f"{name}(…)"
    match said:
        case list():
            parts = [_kind(value) for value in said]
        case {"*": list() as args, **kwargs}:
            parts = [*map(_kind, args), *(f"{key}: {_kind(value)}" for key, value in kwargs.items())]
        case _:
            parts = [f"{key}: {_kind(value)}" for key, value in said.items()]
    return f"{name}({', '.join(parts)})"[:1000]


def _kind(value: Any) -> str:
    """The JSON kind of a value."""
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def encode_untyped(args: Sequence[Any], kwargs: Mapping[str, Any], name: str, *, positions: bool = True) -> str:
    """Arguments as JSON where the signature isn't known: submitted by name. The worker validates them.

    Args:
        positions: False writes the keywords alone, in the form that is bound already.

    Raises:
        NotSerializable: a value has no JSON form.
        PayloadTooLarge: the JSON is larger than `MAX_PAYLOAD_BYTES`.
    """
    value = dict(kwargs) if not positions else {"*": list(args), **kwargs} if kwargs else list(args)
    return write_json(lambda: to_json(value, bytes_mode="base64", inf_nan_mode="constants"), f"the arguments of {name}")


def write_json(write: Callable[[], bytes], what: str) -> str:
    """Run a serializer; its failures become typed errors that name `what`."""
    try:
        text = write().decode()
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise NotSerializable(f"{what} can't be written as JSON: {error}") from None
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_PAYLOAD_BYTES:
        raise PayloadTooLarge(
            f"{what} take {size:,} bytes, over the limit of {MAX_PAYLOAD_BYTES:,}: "
            "store large data elsewhere and pass a reference"
        )
    return text


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except Exception as error:
        raise TaskDefinitionError(f"task {name}: an annotation can't be resolved: {error}") from error


def _returned(function: Callable[..., Any], hint: Any) -> tuple[Any, Any]:
    """The types of what a function yields and returns; the same twice where it yields nothing."""
    if not (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)):
        return hint, hint
    inside = get_args(hint)
    part = inside[0] if inside else Any
    return part, inside[2] if len(inside) == 3 else None


def _arguments_type(parameters: Any, hints: dict[str, Any], *, partly: bool = False) -> Any:
    """A TypedDict of the parameters: names can't clash with methods, and absent defaults stay absent."""
    items: dict[str, Any] = {}
    for parameter in parameters:
        hint = hints.get(parameter.name, Any)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            items[parameter.name] = NotRequired[list[hint]]  # type: ignore[valid-type]
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            items[parameter.name] = NotRequired[dict[str, hint]]  # type: ignore[valid-type]
        elif parameter.default is inspect.Parameter.empty and not partly:
            items[parameter.name] = Required[hint]
        else:
            items[parameter.name] = NotRequired[hint]
    return TypedDict("arguments", items)  # type: ignore[operator]


def _adapter(hint: Any, name: str) -> TypeAdapter[Any]:
    """An adapter with our configuration, which pydantic hands down to all types that have none of their own.

    The alias is needed: pydantic refuses a configuration for a TypedDict or a dataclass at the root.
    """
    try:
        alias: Any = TypeAliasType("value", hint)
        return TypeAdapter(alias, config=_CONFIG)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        what = error.message.partition(". ")[0]
        raise TaskDefinitionError(f"task {name}: an annotation has no JSON form: {what}") from error


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__} that can't be shown>"
    return text if len(text) <= 80 else text[:77] + "..."
