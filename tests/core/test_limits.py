"""Limits as users write them."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastworker import ConfigurationError, task
from fastworker.limits import MOST_RATES, UNLIMITED, RateLimit, TaskLimits, make_limits, parse_rate

LONGEST_PARSE = 0.005
MOST_MEMORY = 1_000_000


@pytest.mark.parametrize(
    ("text", "count", "period"),
    [
        ("10/s", 10, 1.0),
        ("100k/d", 100_000, 86_400.0),
        ("2M/h", 2_000_000, 3600.0),
        ("5/30s", 5, 30.0),
        ("1/90m", 1, 5400.0),
        ("007/s", 7, 1.0),
    ],
)
def test_a_rate_is_a_number_and_a_period(text: str, count: int, period: float) -> None:
    assert parse_rate(text) == RateLimit(count, period)


@pytest.mark.parametrize(
    "text",
    [
        "10/fortnight", "10", "/s", "10/", "10 / s", "10/s ", "-1/s", "1.5/s", "1e3/s", "10K/s", "10/S", "10/2w",
        "١٠/s", "10/s\n", "", "9" * 10 + "/s", "1/" + "9" * 7 + "s", 10, None, 1.0, b"10/s", ["10/s"],
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_says_how_to_write_it(text: object) -> None:
    with pytest.raises(ConfigurationError, match="write it as '10/s'"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["0/s", "000/h", "0k/d", "1/0s", "5/000m"])
def test_a_limit_of_0_is_refused_and_says_what_does_that(text: str) -> None:
    with pytest.raises(ConfigurationError, match="fastworker pause"):
        parse_rate(text)


def test_a_huge_text_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_rate("9" * 1_000_000)
    assert len(str(caught.value)) < 200


@given(st.integers(1, 999_999_999), st.integers(1, 999_999), st.sampled_from("smhd"))
def test_what_is_shown_can_be_written(count: int, times: int, unit: str) -> None:
    rate = parse_rate(f"{count}/{times}{unit}")
    assert parse_rate(str(rate)) == rate


@given(st.one_of(st.text(), st.from_regex(r"\A[0-9]{0,12}[kMG]?/[0-9]{0,8}[smhdw]?"), st.integers(), st.none()))
@example("9" * 1_000_000)
@example("9" * 1_000_000 + "/s")
@example("1/" + "0" * 1_000_000 + "s")
@example("\0" * 1_000_000)
def test_the_parser_takes_or_refuses_anything_soon_and_in_little_memory(text: Any) -> None:
    tracemalloc.start()
    try:
        rate, _ = parsed(text)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rate is None or (rate.count > 0 and rate.period > 0)
    assert most <= MOST_MEMORY
    # One slow parse may be a page fault or a collection that fell into it; a slow parser is slow each time.
    assert any(parsed(text)[1] <= LONGEST_PARSE for _ in range(10))


def parsed(text: Any) -> tuple[RateLimit | None, float]:
    """What the parser makes of it, if it takes it, and the seconds of this thread's processor that it took."""
    began = time.thread_time()
    try:
        rate = parse_rate(text)
    except ConfigurationError:
        rate = None
    return rate, time.thread_time() - began


# ---- at a task function ----------------------------------------------------------------------------------------------


def test_a_task_may_have_several_rates_and_a_concurrency() -> None:
    @task(rate_limit=["10/s", "100k/d"], max_concurrency=5)
    def limited() -> None: ...

    assert limited.definition().limits == TaskLimits((RateLimit(10, 1.0), RateLimit(100_000, 86_400.0)), 5)
    assert limited.options(priority="high").limits == limited.limits


def test_a_task_has_no_limits_if_none_are_said() -> None:
    @task
    def free() -> None: ...

    assert free.definition().limits == UNLIMITED
    assert not free.limits


@pytest.mark.parametrize("value", [0, -1, 2.5, "5", True, float("inf")])
def test_a_wrong_concurrency_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="use a whole number from 1"):
        task(max_concurrency=value)(lambda: None)


def test_too_many_rates_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=f"{MOST_RATES} are the most"):
        make_limits(["1/s"] * (MOST_RATES + 1), None)
    assert len(make_limits(["1/s"] * MOST_RATES, None).rates) == MOST_RATES


@pytest.mark.parametrize("said", [10, 1.5, {1: 2}, [None], object()])
def test_what_is_no_rate_at_all_is_refused_as_such(said: Any) -> None:
    with pytest.raises(ConfigurationError, match="rate_limit"):
        make_limits(said, None)
