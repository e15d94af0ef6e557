"""Requests that wait for their answers, and how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from unittest.mock import Mock

import pytest

from fastworker.errors import ConnectionFailed
from fastworker.pending import Pending


class Clock:
    """Stands for an event loop whose time the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> Mock:
        self._due.append((when, partial(callback, *args)))
        return Mock(spec=asyncio.TimerHandle)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Mock:
        return self.call_at(self.now + delay, callback, *args)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [call for when, call in self._due if when <= self.now]
        self._due = [(when, call) for when, call in self._due if when > self.now]
        for call in due:
            call()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def add(pending: Pending[str], number: int, clock: Clock) -> asyncio.Future[object]:
    return pending.add(number, f"message {number}", cast(Any, clock))


async def test_an_answer_reaches_its_request(clock: Clock) -> None:
    pending = Pending[str](10.0)
    first, second = add(pending, 1, clock), add(pending, 2, clock)
    pending.finish(2, "two")
    assert await second == "two"
    assert list(pending) == ["message 1"]
    pending.finish(1, ConnectionFailed("no"))
    with pytest.raises(ConnectionFailed, match="no"):
        await first
    assert list(pending) == []


async def test_an_answer_that_nobody_waits_for_is_overlooked(clock: Clock) -> None:
    pending = Pending[str](10.0)
    answer = add(pending, 1, clock)
    answer.cancel()
    assert list(pending) == []  # nor is it asked again
    pending.finish(1, "late")
    pending.finish(2, "never asked")


async def test_each_request_is_given_up_after_its_own_time(clock: Clock) -> None:
    pending = Pending[str](10.0)
    first, cancelled = add(pending, 1, clock), add(pending, 2, clock)
    cancelled.cancel()
    clock.advance(3.0)
    later = add(pending, 3, clock)
    clock.advance(7.0)
    with pytest.raises(ConnectionFailed, match=r"has not answered for 10 s; what was asked may or may not have been"):
        await first
    assert not later.done()
    clock.advance(3.0)
    with pytest.raises(ConnectionFailed):
        await later
    after = add(pending, 4, clock)
    clock.advance(10.0)
    with pytest.raises(ConnectionFailed):
        await after


async def test_at_the_end_all_fail_at_once_and_nothing_stays(clock: Clock) -> None:
    pending = Pending[str](10.0)
    answers = [add(pending, 1, clock), add(pending, 2, clock)]
    answers[0].cancel()
    pending.fail_all(ConnectionFailed("the client was stopped"))
    with pytest.raises(ConnectionFailed, match="stopped"):
        await answers[1]
    assert list(pending) == []
