"""When a failed task comes back."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastworker.errors import ConfigurationError
from fastworker.retry import Retry, delay_before_retry
from fastworker.tasks import Backoff, BackoffKind


@pytest.mark.parametrize(
    ("kind", "waits"),
    [
        ("exponential", [2.0, 4.0, 8.0, 16.0, 20.0, 20.0]),
        ("linear", [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]),
        ("constant", [2.0] * 6),
    ],
)
def test_without_jitter_the_wait_grows_as_said_up_to_the_cap(kind: BackoffKind, waits: list[float]) -> None:
    backoff = Backoff(kind, base=2.0, cap=20.0, jitter=False)
    assert [delay_before_retry(backoff, failures, Random(0)) for failures in range(1, 7)] == waits


@given(
    st.sampled_from(["exponential", "linear", "constant"]),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.integers(1, 10_000),
    st.integers(),
)
def test_full_jitter_stays_between_zero_and_the_upper_end(
    kind: BackoffKind, base: float, cap: float, failures: int, seed: int
) -> None:
    upper = delay_before_retry(Backoff(kind, base, cap, jitter=False), failures, Random(seed))
    wait = delay_before_retry(Backoff(kind, base, cap), failures, Random(seed))
    assert 0.0 <= wait <= upper <= cap


def test_full_jitter_spreads_tasks_that_failed_together_over_the_whole_span() -> None:
    random = Random(7)
    waits = sorted(delay_before_retry(Backoff(base=1.0), 4, random) for _ in range(2_000))
    assert waits[0] < 0.1 < 7.9 < waits[-1] <= 8.0
    quarters = [sum(low <= wait < low + 2 for wait in waits) for low in (0, 2, 4, 6)]
    assert all(400 < count < 600 for count in quarters)


def test_the_same_seed_gives_the_same_waits() -> None:
    def waits(seed: int) -> list[float]:
        random = Random(seed)
        return [delay_before_retry(Backoff(), n, random) for n in range(1, 9)]

    assert waits(3) == waits(3) != waits(4)


def test_a_task_asks_to_be_run_again_after_a_while() -> None:
    assert Retry().after == 0.0
    assert Retry(after=2.5).after == 2.5
    assert str(Retry(2)) == "run again after 2 s"


@pytest.mark.parametrize("after", [-1, math.nan, math.inf])
def test_an_impossible_wait_is_refused_where_it_is_written(after: float) -> None:
    with pytest.raises(ConfigurationError, match="Retry"):
        Retry(after=after)
