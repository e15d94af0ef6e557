"""Data from the wire as the types of the client's answers."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter


def validated[T](kind: type[T], data: Any) -> T:
    """The data as this type. Validators are made at first use: making all takes longer than most commands."""
    value: T = _adapter(cast(Hashable, kind)).validate_python(data)
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
