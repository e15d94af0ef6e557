"""Numbers, times and durations in the words of a page."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Final

from fastworker.sizes import megabytes

_UNITS: Final = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
LONGEST_SHOWN: Final = 100_000
PARTS_OF_A_PLACE: Final = 2


def number(value: float | None) -> str:
    """With a thin gap between thousands."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def short(value: float) -> str:
    """At most four characters, for the axis of a chart."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def size(count: int | None) -> str:
    """Bytes, to three digits."""
    if count is None:
        return "–"
    return megabytes(count) if count < 1000 * 1024**2 else f"{count / 1024**3:.3g} GB"


def rate(value: float) -> str:
    """Per second."""
    return f"{value:.1f}" if value < 10 else number(value)


def duration(seconds: float | None) -> str:
    """In the two units that matter."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds != int(seconds) else f"{seconds:.0f} s"
    parts: list[str] = []
    left = round(seconds)
    for size, unit in _UNITS:
        count, left = divmod(left, int(size))
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 ")) or "0 s"


def moment(at: float | None) -> str:
    """A time in UTC, to the millisecond."""
    if at is None:
        return "–"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def clock(at: float | None) -> str:
    """The time of a day in UTC; with the date if it was not today."""
    if at is None:
        return "–"
    when = datetime.fromtimestamp(at, UTC)
    today = datetime.fromtimestamp(time.time(), UTC).date()
    return when.strftime("%H:%M:%S" if when.date() == today else "%b %d %H:%M")


def day(at: float) -> str:
    """A time to come, to the minute where it is at a full one."""
    when = datetime.fromtimestamp(at, UTC)
    return when.strftime("%a %b %d %H:%M" if at % 60 == 0 else "%a %b %d %H:%M:%S")


def short_place(text: str) -> str:
    """Where an error was raised, without the folders that all files of a project lie in."""
    path, colon, rest = text.rpartition(":")
    folders = path.replace("\\", "/").split("/")
    return text if len(folders) <= PARTS_OF_A_PLACE else f"…/{'/'.join(folders[-PARTS_OF_A_PLACE:])}{colon}{rest}"


def ago(at: float | None) -> str:
    """How long ago, or in how long."""
    if at is None:
        return "–"
    passed = time.time() - at
    if passed < -1:
        return f"in {duration(-passed)}"
    return "now" if passed < 1 else f"{duration(float(int(passed)))} ago"


def pretty(text: str | None) -> str:
    """JSON with line breaks; any other text as it is."""
    if text is None:
        return ""
    shown = text
    if len(text) <= LONGEST_SHOWN:
        try:
            shown = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            shown = text
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}\n… {len(shown):,} characters in all"


def arguments(text: str | None) -> str:
    """Arguments on one line."""
    if text is None:
        return "too long to list"
    return text if len(text) <= 160 else f"{text[:160]}…"
