"""Takes secrets out of arguments and results, before they leave the control plane for a dashboard.

A secret is what a name says it is, and each parameter of a task function whose JSON schema says `writeOnly`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fastworker.tasks import Definition, TaskInfo

SECRET: Final = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|api_?key|access_?key|private_?key|authorization|credential|cookie|^pwd$",
    re.IGNORECASE,
)
"""Names of parameters and of keys whose values are taken out."""
INSTEAD: Final = "•••"
NOT_SHOWN: Final = json.dumps("not JSON, so not shown")


@dataclass(frozen=True, slots=True)
class Parameters:
    """The names of a task function's parameters in their order, and which of them hold secrets."""

    names: Sequence[str] = ()
    secret: Collection[str] = ()


NO_PARAMETERS: Final = Parameters()


def parameters_of(definition: Definition) -> Parameters:
    """What a definition tells of its parameters."""
    schemas: dict[str, Any] = definition.parameters.get("properties", {})
    secret = [name for name, schema in schemas.items() if SECRET.search(name) or _is_write_only(schema)]
    return Parameters(list(schemas), secret)


def _is_write_only(schema: Any) -> bool:
    return isinstance(schema, dict) and (schema.get("writeOnly") is True or schema.get("format") == "password")


def redacted(info: TaskInfo, parameters: Parameters) -> TaskInfo:
    """The task without secrets in its arguments and its result.

    Args:
        parameters: of its task function.
    """
    return replace(
        info,
        args=_clean_text(info.args, parameters) if info.args is not None else None,
        result=_clean_text(info.result, NO_PARAMETERS) if info.result is not None else None,
    )


def _clean_text(text: str, parameters: Parameters) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return NOT_SHOWN
    if isinstance(value, list) and parameters.names:
        cleaned: Any = _positions(value, parameters)
    elif isinstance(value, dict) and isinstance(value.get("*"), list):
        cleaned = _keywords({key: item for key, item in value.items() if key != "*"}, parameters)
        cleaned = {"*": _positions(value["*"], parameters), **cleaned}
    elif isinstance(value, dict):
        cleaned = _keywords(value, parameters)
    else:
        cleaned = _clean(value)
    return text if cleaned == value else json.dumps(cleaned, ensure_ascii=False, separators=(",", ":"))


def _positions(values: list[Any], parameters: Parameters) -> list[Any]:
    names = [*parameters.names, *[""] * len(values)]
    return [INSTEAD if name in parameters.secret else _clean(value) for name, value in zip(names, values, strict=False)]


def _keywords(values: dict[str, Any], parameters: Parameters) -> dict[str, Any]:
    cleaned: dict[str, Any] = _clean(values)
    return {name: INSTEAD if name in parameters.secret else value for name, value in cleaned.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: INSTEAD if SECRET.search(str(key)) else _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
