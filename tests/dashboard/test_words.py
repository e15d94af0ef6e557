"""Numbers, times and charts as pages show them."""

from __future__ import annotations

import time
from xml.etree import ElementTree

import pytest

from fastworker.activity import BUCKETS, Series
from fastworker_dashboard import charts, words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (0.0, "0 ms"), (0.0023, "2.3 ms"), (0.25, "250 ms"), (1.0, "1 s"), (1.26, "1.3 s"), (59, "59 s"),
        (61, "1 min 1 s"), (3600, "1 h"), (3661, "1 h 1 min"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_a_duration_is_told_in_the_units_that_matter(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


def test_numbers_have_gaps_and_times_say_how_long_ago() -> None:
    assert words.number(1234567) == "1\u202f234\u202f567"
    assert words.ago(time.time() - 65) == "1 min 5 s ago"
    assert words.ago(time.time() + 65).startswith("in 1 min")
    assert words.ago(None) == "–"


@pytest.mark.parametrize(
    ("count", "text"), [(None, "–"), (52_428_800, "50 MB"), (1_200_000_000, "1.12 GB"), (3 * 1024**3, "3 GB")]
)
def test_memory_is_told_in_three_digits(count: int | None, text: str) -> None:
    assert words.size(count) == text


def test_a_time_to_come_is_told_by_day_and_minute() -> None:
    assert words.day(1_800_000_000.0) == "Fri Jan 15 08:00"
    assert words.day(1_800_000_007.0) == "Fri Jan 15 08:00:07"


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("/srv/shop/app/tasks/mail.py:7 in send", "…/tasks/mail.py:7 in send"),
        ("C:\\shop\\app\\tasks.py:7 in send", "…/app/tasks.py:7 in send"),
        ("tasks.py:7 in send", "tasks.py:7 in send"),
        ("", ""),
    ],
)
def test_a_place_is_told_without_the_folders_that_all_files_lie_in(place: str, text: str) -> None:
    assert words.short_place(place) == text


def test_json_is_laid_out_and_anything_else_is_left_as_it_is() -> None:
    assert words.pretty('{"a":1}') == '{\n  "a": 1\n}'
    assert words.pretty("not json") == "not json"
    assert len(words.pretty('"' + "x" * 200_000 + '"')) < 101_000


def a_series(values: list[int]) -> Series:
    return Series(1_800_000_000.0, 1.0, values, values, values, values, values, values)


@pytest.mark.parametrize("values", [[0] * 120, [5] * 120, list(range(120)), [10**9] * 120])
@pytest.mark.parametrize("kind", ["throughput", "depth"])
def test_a_chart_is_well_formed_and_its_lines_stay_inside(values: list[int], kind: str) -> None:
    svg = ElementTree.fromstring(str(charts.series_chart(a_series(values), kind)))
    assert svg.get("aria-label")
    for line in svg.iter("polyline"):
        for point in (line.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= charts.WIDTH
            assert 0 <= y <= charts.HEIGHT


def test_the_table_of_a_chart_holds_the_same_counts() -> None:
    rows = charts.table(a_series(list(range(120))))
    assert sum(int(row[1].replace("\u202f", "")) for row in rows) == sum(range(120))


def test_a_histogram_shows_what_was_seen() -> None:
    assert charts.histogram([0] * BUCKETS) == ""
    counts = [0] * BUCKETS
    counts[3], counts[5] = 10, 5
    bars = list(ElementTree.fromstring(str(charts.histogram(counts))).iter("rect"))
    assert len(bars) == 5
