"""Charts as SVG, drawn here: they need no script, and a page shows the same numbers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup, escape

from fastworker.activity import Series, bucket_end
from fastworker_dashboard.words import duration, number, short

WIDTH = 640
HEIGHT = 150
LEFT = 36
BOTTOM = 18
MOST_TICKS = 9


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; `kind` is its class in the style sheet."""

    kind: str
    label: str
    values: Sequence[float]


def series_chart(series: Series, kind: str) -> Markup:
    """Done and failed per second, or queued and running, over a span."""
    per = series.step
    if kind == "throughput":
        lines = [
            Line("done", "done per second", [value / per for value in series.succeeded]),
            Line("bad", "failed per second", [value / per for value in series.failed]),
        ]
    else:
        lines = [Line("queued", "queued", series.queued), Line("running", "running", series.running)]
    return _chart(lines, series.start, series.step)


def _chart(lines: Sequence[Line], start: float, step: float) -> Markup:
    top = _round_up(max(max(line.values, default=0.0) for line in lines))
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_summary(lines))}">',
        *_grid(top, start, step, len(lines[0].values)),
        *(_area(line, top) if index == 0 else _path(line, top) for index, line in enumerate(lines)),
        "</svg>",
    ]
    return Markup("".join(parts))


def _summary(lines: Sequence[Line]) -> str:
    return "; ".join(f"{line.label}: now {short(line.values[-1])}, at most {short(max(line.values))}" for line in lines)


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    size = 1.0
    while size < value:
        for factor in (2, 2.5, 2):
            if size >= value:
                break
            size *= factor
    return size


def _x(index: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT) * index / max(1, count - 1)


def _y(value: float, top: float) -> float:
    return 6 + (HEIGHT - BOTTOM - 6) * (1 - value / top)


def _points(line: Line, top: float) -> str:
    count = len(line.values)
    return " ".join(f"{_x(n, count):.1f},{_y(value, top):.1f}" for n, value in enumerate(line.values))


def _path(line: Line, top: float) -> str:
    return f'<polyline class="line {line.kind}" points="{_points(line, top)}"/>'


def _area(line: Line, top: float) -> str:
    ground = HEIGHT - BOTTOM
    return (
        f'<polygon class="area {line.kind}" points="{LEFT},{ground} {_points(line, top)} {WIDTH},{ground}"/>'
        + _path(line, top)
    )


def _levels(top: float) -> list[str]:
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = _y(top * share, top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(top * share)}</text>')
    return parts


def _grid(top: float, start: float, step: float, count: int) -> list[str]:
    parts = _levels(top)
    for index, anchor in ((0, "start"), (count // 2, "middle"), (count - 1, "end")):
        at = datetime.fromtimestamp(start + index * step, UTC).strftime("%H:%M:%S" if step < 60 else "%H:%M")
        parts.append(
            f'<text class="tick" x="{_x(index, count):.0f}" y="{HEIGHT - 3}" text-anchor="{anchor}">{at}</text>'
        )
    return parts


def table(series: Series, rows: int = 12) -> list[tuple[str, str, str, str, str]]:
    """The same in at most so many rows: time, done, failed, queued, running."""
    size = max(1, len(series.succeeded) // rows)
    found = []
    for first in range(0, len(series.succeeded), size):
        part = slice(first, first + size)
        at = datetime.fromtimestamp(series.start + first * series.step, UTC).strftime("%H:%M:%S")
        last = min(first + size, len(series.queued)) - 1
        found.append(
            (at, number(sum(series.succeeded[part])), number(sum(series.failed[part])),
             number(series.queued[last]), number(series.running[last]))
        )  # fmt: skip
    return found


def histogram(counts: Sequence[int]) -> Markup:
    """How long attempts ran, from the shortest to the longest that was seen."""
    seen = [index for index, count in enumerate(counts) if count]
    if not seen:
        return Markup("")
    shown = range(max(0, seen[0] - 1), min(len(counts), seen[-1] + 2))
    top = _round_up(max(counts))
    width = (WIDTH - LEFT) / len(shown)
    told = "; ".join(f"up to {duration(bucket_end(index))}: {counts[index]:,}" for index in shown if counts[index])
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="how long attempts ran: {told}">',
        *_levels(top),
        *(_bar(LEFT + place * width, width, counts[index], top, index) for place, index in enumerate(shown)),
    ]
    step = -(-len(shown) // MOST_TICKS)
    for place in range(0, len(shown), step):
        x = LEFT + (place + 0.5) * width
        text = duration(bucket_end(shown[place]))
        parts.append(f'<text class="tick" x="{x:.0f}" y="{HEIGHT - 3}" text-anchor="middle">{text}</text>')
    parts.append("</svg>")
    return Markup("".join(parts))


def _bar(x: float, width: float, count: int, top: float, bucket: int) -> str:
    y = _y(count, top)
    return (
        f'<rect class="bar" x="{x + 1:.1f}" y="{y:.1f}" width="{max(1.0, width - 2):.1f}" '
        f'height="{_y(0, top) - y:.1f}"><title>up to {duration(bucket_end(bucket))}: {count:,}</title></rect>'
    )
