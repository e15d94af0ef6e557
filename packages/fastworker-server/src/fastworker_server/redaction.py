"""Takes what looks like a secret out of arguments and results, before they leave the control plane for a dashboard."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Final

from fastworker.tasks import Definition, TaskInfo

SECRET: Final = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|api_?key|access_?key|private_?key|authorization|credential|cookie|^pwd$",
    re.IGNORECASE,
)
"""Names of parameters and of keys whose values are taken out."""
INSTEAD: Final = "•••"
NOT_SHOWN: Final = json.dumps("not JSON, so not shown")


def redacted(info: TaskInfo, definition: Definition | None) -> TaskInfo:
    """The task without secrets in its arguments and its result.

    Args:
        definition: tells the names of arguments that were given by position.
    """
    names = list(definition.parameters.get("properties", {})) if definition is not None else []
    return replace(
        info,
        args=_clean_text(info.args, names) if info.args is not None else None,
        result=_clean_text(info.result, []) if info.result is not None else None,
    )


def _clean_text(text: str, names: list[str]) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return NOT_SHOWN
    if isinstance(value, list) and names:
        cleaned: Any = _positions(value, names)
    elif isinstance(value, dict) and isinstance(value.get("*"), list):
        cleaned = _clean({key: item for key, item in value.items() if key != "*"})
        cleaned = {"*": _positions(value["*"], names), **cleaned}
    else:
        cleaned = _clean(value)
    return text if cleaned == value else json.dumps(cleaned, ensure_ascii=False, separators=(",", ":"))


def _positions(values: list[Any], names: list[str]) -> list[Any]:
    secret = [index < len(names) and SECRET.search(names[index]) is not None for index in range(len(values))]
    return [INSTEAD if hidden else _clean(value) for hidden, value in zip(secret, values, strict=True)]


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: INSTEAD if SECRET.search(str(key)) else _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
