"""A handle is a value: results of other tasks as arguments.

In the arguments of a task that needs others, `{"$result": id}` stands where the result of that task belongs. The
worker puts it there before it decodes the arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from fastworker.codec import POSITIONS, Signature, encode_untyped, write_json
from fastworker.handle import TaskHandle

RESULT: Final = "$result"
LEFT_OUT: Final = ""
"""In place of JSON: this argument is left out of its list or object, or null where it stands alone."""


@dataclass(frozen=True, slots=True)
class UpstreamFailure:
    """What a task with `on_upstream_failure="run"` gets in place of a result.

    Attributes:
        task: id of the task that did not succeed.
        name: its task name.
        state: `failed`, `cancelled` or `expired`.
        type: qualified name of the exception.
        message: its text.
    """

    task: str
    name: str
    state: str
    type: str
    message: str


def encode_call(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Arguments as JSON, and the ids of the tasks whose results they contain.

    Arguments without a handle are validated now, the others in the worker, when the results are there. Raises what
    `Signature.encode` raises.
    """
    if not (_holds_handle(args) or _holds_handle(kwargs.values())):
        return signature.encode(args, kwargs), ()
    needs: dict[str, None] = {}
    open_values: dict[str, Any] = {}
    closed: dict[str, Any] = {}
    for name, value in signature.bind(args, kwargs).items():
        if _is_or_holds_handle(value):
            open_values[name] = _with_placeholders(value, needs)
        else:
            closed[name] = value
    return signature.encode_partly(closed, open_values), tuple(needs)


def encode_call_by_name(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The same where the signature isn't known."""
    if not (_holds_handle(args) or _holds_handle(kwargs.values())):
        return encode_untyped(args, kwargs, name), ()
    needs: dict[str, None] = {}
    args, kwargs = _with_placeholders(list(args), needs), _with_placeholders(dict(kwargs), needs)
    return encode_untyped(args, kwargs, name), tuple(needs)


def _holds_handle(values: Any) -> bool:
    try:
        return any(map(_is_or_holds_handle, values))
    except RecursionError:  # it holds itself, or is too deep: the encoder says so
        return False


def _is_or_holds_handle(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_or_holds_handle, value))
    if isinstance(value, dict):
        return any(map(_is_or_holds_handle, value.values()))
    return isinstance(value, TaskHandle)


def _with_placeholders(value: Any, needs: dict[str, None]) -> Any:
    if isinstance(value, TaskHandle):
        needs[value.id] = None
        return {RESULT: value.id}
    if isinstance(value, list | tuple):
        return [_with_placeholders(item, needs) for item in value]
    if isinstance(value, dict):
        return {key: _with_placeholders(item, needs) for key, item in value.items()}
    return value


def fill_in(payload: str, inputs: Mapping[str, str], what: str) -> str:
    """The arguments with the results in their places. `what` names them in errors."""
    arguments = from_json(payload)
    if isinstance(arguments, dict):
        filled: Any = {name: _argument(name, value, inputs) for name, value in arguments.items()}
    else:
        filled = _positions(arguments, inputs)
    return write_json(lambda: json.dumps(filled).encode(), what)


def _argument(name: str, value: Any, inputs: Mapping[str, str]) -> Any:
    return _positions(value, inputs) if name == POSITIONS else _filled(value, inputs)


def _positions(values: Any, inputs: Mapping[str, str]) -> Any:
    """Nothing is left out here, or the others would move."""
    return [_filled(value, inputs) for value in values] if isinstance(values, list) else values


def _filled(value: Any, inputs: Mapping[str, str]) -> Any:
    if _is_placeholder(value, inputs):
        text = inputs[value[RESULT]]
        return None if text == LEFT_OUT else from_json(text)
    if isinstance(value, dict):
        return {key: _filled(item, inputs) for key, item in value.items() if not _is_left_out(item, inputs)}
    if isinstance(value, list):
        return [_filled(item, inputs) for item in value if not _is_left_out(item, inputs)]
    return value


def _is_placeholder(value: Any, inputs: Mapping[str, str]) -> bool:
    task_id = value.get(RESULT) if isinstance(value, dict) and len(value) == 1 else None
    return isinstance(task_id, str) and task_id in inputs


def _is_left_out(value: Any, inputs: Mapping[str, str]) -> bool:
    return _is_placeholder(value, inputs) and inputs[value[RESULT]] == LEFT_OUT
