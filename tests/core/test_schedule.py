"""When a schedule is due: on the grid, on the clock on the wall, and in what a stranger may write."""

from __future__ import annotations

import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastworker.errors import ConfigurationError, TaskDefinitionError
from fastworker.function import Registry, task
from fastworker.schedule import Timing, between, describe, firing_id, is_firing_id, last_between, next_after, next_runs
from fastworker.schedule_options import make_timing
from fastworker.tasks import is_task_id

YEAR = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())


def made(**said: Any) -> Timing:
    return make_timing("report", **said)


def shown(timing: Timing, after: datetime, most: int = 3) -> list[str]:
    """The next runs, as the clock shows them there."""
    zone = ZoneInfo(timing.tz)
    return [
        f"{datetime.fromtimestamp(due, zone):%m-%d %H:%M %Z}" for due in next_runs(timing, after.timestamp(), 0, most)
    ]


def test_every_stays_on_its_grid() -> None:
    timing = made(every=timedelta(seconds=0.3))
    assert next_after(timing, 999.0, anchor=1000.0) == 1000.0
    dues = list(between(timing, 1000.0, 1300.0, anchor=1000.0))
    assert dues == [1000.0 + n * 0.3 for n in range(1, 1001)]


def test_start_end_are_kept() -> None:
    timing = made(every=10, start=1003, end=1023)
    assert list(between(timing, 0.0, 9999.0, anchor=5.0)) == [1003.0, 1013.0, 1023.0]
    assert next_after(timing, 1023.0) is None


def test_a_time_that_the_clock_skips_or_shows_twice_runs_once() -> None:
    timing = made(cron="30 2 * * *", tz="Europe/Berlin")
    assert shown(timing, datetime(2026, 3, 28, 12, tzinfo=UTC)) == [
        "03-29 03:00 CEST",
        "03-30 02:30 CEST",
        "03-31 02:30 CEST",
    ]
    assert shown(timing, datetime(2026, 10, 24, 12, tzinfo=UTC)) == [
        "10-25 02:30 CEST",
        "10-26 02:30 CET",
        "10-27 02:30 CET",
    ]
    with_seconds = made(cron="15 30 2 * * *", tz="Europe/Berlin")
    assert shown(with_seconds, datetime(2026, 10, 25, 0, 31, tzinfo=UTC), 1) == ["10-26 02:30 CET"]


def test_an_hour_that_comes_twice_has_all_its_quarters_twice() -> None:
    timing = made(cron="*/30 2 * * *", tz="Europe/Berlin")
    found = shown(timing, datetime(2026, 10, 24, 12, tzinfo=UTC), 5)
    assert found == ["10-25 02:00 CEST", "10-25 02:30 CEST", "10-25 02:00 CET", "10-25 02:30 CET", "10-26 02:00 CET"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"])
@pytest.mark.parametrize(
    ("cron", "hours", "minutes"),
    [
        ("*/20 1,3 * * *", {1, 3}, {0, 20, 40}),
        ("*/10 2 * * *", {2}, set(range(0, 60, 10))),
        ("5 * * * *", set(range(24)), {5}),
    ],
    ids=["two hours", "an hour", "hourly"],
)
def test_it_runs_whenever_the_clock_shows_the_time(zone: str, cron: str, hours: set[int], minutes: set[int]) -> None:
    """Minute by minute over the days round each change of the clock."""
    there = ZoneInfo(zone)
    days = [YEAR + n * 86_400 for n in range(365)]
    changes = [day for day in days if _offset(day, there) != _offset(day + 86_400, there)]
    assert changes
    for day in changes:
        begin, end = day - 86_400, day + 2 * 86_400
        walls = ((at, datetime.fromtimestamp(at, there)) for at in range(begin, end, 60))
        expected = [at for at, wall in walls if wall.hour in hours and wall.minute in minutes]
        assert list(between(made(cron=cron, tz=zone), begin - 1, end - 1)) == expected


def _offset(moment: int, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(moment, zone).utcoffset()


@given(
    st.sampled_from([{"every": 7.5}, {"cron": "*/5 * * * * *"}, {"cron": "0 0 29 2 *"}, {"cron": "0 9-17/4 * * 1-5"}]),
    st.floats(0, 2000), st.floats(0, 2000),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_last_of_many_is_found_without_looking_at_all(said: dict[str, Any], since: float, length: float) -> None:
    timing = made(**said)
    dues = list(between(timing, YEAR + since, YEAR + since + length, anchor=YEAR))
    assert last_between(timing, YEAR + since, YEAR + since + length, anchor=YEAR) == (dues[-1] if dues else None)


def test_a_run_has_an_id_of_its_own_and_always_the_same() -> None:
    assert firing_id("report", 1000.0) == firing_id("report", 1000.0)
    assert len({firing_id(name, due) for name in ("a", "b") for due in (1.0, 1.000001, 2.0)}) == 6
    run = firing_id("report", 1000.0)
    assert (UUID(run).version, UUID(run).variant) == (8, "specified in RFC 4122")
    assert is_task_id(run)
    assert is_firing_id(run)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"every": 60}, "Every minute"),
        ({"every": 5400}, "Every 90 minutes"),
        ({"cron": "0 9 * * 1-5", "tz": "Europe/Berlin"}, "At 09:00 on Monday through Friday (Europe/Berlin)"),
        ({"every": 5, "count": 3, "end": "2027-01-01"}, "Every 5 seconds, until 2027-01-01 00:00:00 UTC, 3 times"),
        ({"repeat_interval": 5, "repeat_count": 1}, "Every 5 seconds, once"),
    ],
)  # fmt: skip
def test_it_says_in_words_when_it_runs(said: dict[str, Any], words: str) -> None:
    assert describe(made(**said)) == words


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ({"tz": "UTC"}, "either every=SECONDS or cron="),
        ({"every": 1, "cron": "* * * * *"}, "either every=SECONDS or cron="),
        ({"every": 0}, "0.1 seconds to 100 years"),
        ({"every": float("nan")}, "0.1 seconds to 100 years"),
        ({"every": "1"}, "use seconds, or a timedelta"),
        ({"every": 10**400}, "too large"),
        ({"every": 1, "repeat_interval": 1}, "old word for every"),
        ({"cron": "0 0 30 2 *"}, "as many as the month has"),
        ({"cron": "0 0 */31 * 2#5"}, "no year has such a date"),
        ({"cron": "60 * * * *"}, "bad minute"),
        ({"cron": "* * * *"}, "five fields"),
        ({"cron": "*" * 10_000}, "at most 256"),
        ({"cron": "* * * * *", "tz": "Mars/Base"}, "is not a time zone"),
        ({"cron": "* * * * *", "tz": "../etc/passwd"}, "is not a time zone"),
        ({"every": 1, "start": "soon"}, "use a datetime"),
        ({"every": 1, "start": 2, "end": 1}, "would never run"),
        ({"every": 1, "count": 0}, "whole number from 1"),
        ({"every": 1, "misfire": "maybe"}, "skip, once, all"),
        ({"every": 1, "overlap": "maybe"}, "allow, skip, queue, cancel_running"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_with_advice(said: dict[str, Any], advice: str) -> None:
    with pytest.raises(ConfigurationError, match="report") as caught:
        made(**said)
    assert advice in str(caught.value)


def test_a_last_moment_that_no_clock_here_reaches_is_refused() -> None:
    """Python looks a day back for the zone that held then, and the first year has none."""
    with pytest.raises(ConfigurationError, match="repeat_until="):
        task(name="scheduled", repeat_interval=30, repeat_until="0001-01-01T00:00:00")(lambda: None)


def test_a_scheduled_function_must_do_without_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastworker.function.registry", Registry())
    with pytest.raises(TaskDefinitionError, match="give user a default"):
        task(every=60)(lambda user: None)
    scheduled = task(name="scheduled", repeat_interval=30, repeat_until="2030-01-01T00:00:00+00:00")(lambda: None)
    assert scheduled.definition().schedule == Timing(every=30.0, end=1893456000.0)


def test_the_keys_of_the_runs_come_with_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastworker.function.registry", Registry())

    def report(user: str = "all") -> None: ...

    keyed = task(name="keyed", every=60, key=lambda user="all": user, fair_key="tenant")(report)
    assert (keyed.definition().key, keyed.definition().fair_key) == ("all", "tenant")
    unscheduled = task(name="unscheduled", key=lambda user: user)(report)
    assert unscheduled.definition().key is None
    wrong = task(name="wrong", every=60, key=lambda user: user)(report)
    with pytest.raises(TaskDefinitionError, match="let the key function do without them"):
        wrong.definition()


PIECES = [*"0123456789*/,-#LW ", "MON", "JAN", "LW", "*/", " * ", "99999999999999999999", "²", "é", "\0"]
crons = st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=40)
fields = st.sampled_from(["*", "*/7", "*/31", "1,2", "5-9", "L", "LW", "2#5", "5L", "31", "30", "*/2"])


@given(crons | st.lists(fields, min_size=5, max_size=6).map(" ".join))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_cron_expression_or_refused_quickly(text: str) -> None:
    def read() -> None:
        try:
            timing = made(cron=text, tz="Europe/Berlin")
        except ConfigurationError:
            return
        assert describe(timing)
        assert next_after(timing, YEAR) is not None

    read()  # imports, time zones
    assert min(_seconds_for(read) for _ in range(5)) < 0.005
    tracemalloc.start()
    read()
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def _seconds_for(read: Any) -> float:
    began = time.perf_counter()
    read()
    return time.perf_counter() - began
