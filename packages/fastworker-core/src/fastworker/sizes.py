"""Sizes of memory as people write them."""

from __future__ import annotations

import re
from typing import Final

from fastworker.errors import ConfigurationError

_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)


def bytes_of(size: int | str) -> int:
    """A size in bytes: a number, or a text such as `"512 MB"` (a megabyte has 1024 × 1024 bytes).

    Raises:
        ConfigurationError: it is no size, or less than one byte.
    """
    match = _SIZE.fullmatch(str(size))
    count = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if count < 1 or isinstance(size, bool):
        raise ConfigurationError(f"{size!r} is no size of memory: use bytes, or a text such as '512 MB' or '2 GB'")
    return count


def megabytes(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1024**2:.0f} MB"
