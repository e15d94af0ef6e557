"""Options as users write them: understood, or refused with the name of the option and what it may be."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastworker.errors import ConfigurationError
from fastworker.options import MAX_RETRIES, make_options
from fastworker.tasks import DEFAULTS, OPTION_NAMES, UNSAID, Backoff, Options, Priority


def made(**said: Any) -> Options:
    return make_options("send_email", **said)[0]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"priority": "critical"}, Options(priority=Priority.CRITICAL)),
        ({"priority": "HIGH"}, Options(priority=Priority.HIGH)),
        ({"priority": Priority.LOW}, Options(priority=Priority.LOW)),
        ({"queue": "mail"}, Options(queue="mail")),
        ({"retries": 0}, Options(retries=0)),
        ({"retries": MAX_RETRIES}, Options(retries=MAX_RETRIES)),
        ({"backoff": "linear"}, Options(backoff=Backoff(kind="linear"))),
        ({"backoff": 2.5}, Options(backoff=Backoff("constant", base=2.5, cap=2.5, jitter=False))),
        ({"backoff": Backoff(base=3.0)}, Options(backoff=Backoff(base=3.0))),
        ({"timeout": 1}, Options(timeout=1.0)),
        ({"timeout": timedelta(minutes=1)}, Options(timeout=60.0)),
        ({"expires": 0.5}, Options(expires=0.5)),
        ({"result_ttl": 0}, Options(result_ttl=0.0)),
        ({"delay": timedelta(hours=1)}, Options(delay=3600.0)),
        ({"eta": 1_700_000_000}, Options(eta=1_700_000_000.0)),
        ({"eta": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)}, Options(eta=1_700_000_000.0)),
        ({"acks": "early"}, Options(acks="early")),
        ({"tags": ["a", "b"]}, Options(tags=("a", "b"))),
        ({"queue": None, "retries": None}, UNSAID),
        ({}, UNSAID),
    ],
)
def test_what_is_said_is_understood(said: dict[str, Any], meant: Options) -> None:
    assert made(**said) == meant


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("priority", "urgent", "use one of critical, high, normal, low"),
        ("priority", 1, "use one of"),
        ("queue", "", "1 to 200 characters"),
        ("queue", "   ", "1 to 200 characters"),
        ("queue", "q" * 201, "1 to 200 characters"),
        ("queue", 5, "1 to 200 characters"),
        ("retries", -1, f"a whole number from 0 to {MAX_RETRIES}"),
        ("retries", MAX_RETRIES + 1, "a whole number"),
        ("retries", 1.5, "a whole number"),
        ("retries", True, "a whole number"),
        ("retries", "3", "a whole number"),
        ("backoff", "sometimes", "'exponential', 'linear', 'constant'"),
        ("backoff", -1, "can't be negative"),
        ("backoff", math.nan, "backoff"),
        ("backoff", math.inf, "backoff"),
        ("backoff", Backoff(base=-1.0), "backoff"),
        ("timeout", 0, "more than 0 seconds"),
        ("timeout", -5, "more than 0 seconds"),
        ("timeout", math.nan, "more than 0 seconds"),
        ("timeout", math.inf, "more than 0 seconds"),
        ("timeout", "soon", "timeout='soon'"),
        ("timeout", timedelta(0), "more than 0 seconds"),
        ("expires", 0, "more than 0 seconds"),
        ("result_ttl", -1, "at least 0 seconds"),
        ("delay", -1, "at least 0 seconds"),
        ("delay", [], "delay=[]"),
        ("eta", math.inf, "a datetime, or seconds since 1970"),
        ("eta", "tomorrow", "eta='tomorrow'"),
        ("acks", "never", "use 'late'"),
        ("tags", "word", "use a list of words"),
        ("tags", [1], "use a list of words"),
        ("tags", 5, "tags=5"),
    ],
)
def test_a_bad_value_is_refused_with_the_task_the_option_and_what_it_may_be(name: str, value: Any, advice: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(**{name: value})
    text = str(caught.value)
    assert text.startswith(f"send_email: {name}=")
    assert advice in text


def test_an_option_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match="send_email: there is no option 'retry'; there are priority, queue, "):
        made(retry=3)


def test_every_option_can_be_said() -> None:
    said = made(
        priority="low", queue="q", retries=1, backoff=1, timeout=1, delay=1, eta=1, expires=1, result_ttl=1,
        acks="late", tags=["t"], hard_timeout=2,
    )  # fmt: skip
    assert all(getattr(said, name) is not None for name in OPTION_NAMES)


def test_the_submission_goes_before_the_definition_and_the_definition_before_the_defaults() -> None:
    definition = made(priority="high", retries=3)
    submission = made(retries=0, delay=5)
    meant = submission.over(definition).over(DEFAULTS)
    assert (meant.priority, meant.retries, meant.delay, meant.queue) == (Priority.HIGH, 0, 5.0, "default")


def test_nothing_said_changes_nothing() -> None:
    definition = made(priority="high")
    assert UNSAID.over(definition) is definition


def test_priorities_rank_from_critical_to_low() -> None:
    assert [priority.rank for priority in (Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW)] == [
        0,
        1,
        2,
        3,
    ]
