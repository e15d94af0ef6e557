"""Timers fire in order, once, and not when they were cancelled."""

from __future__ import annotations

from random import Random

from fastworker_server.timers import NEVER, Timers


class Bell:
    def __init__(self) -> None:
        self.rung: list[tuple[str, float]] = []

    def ring(self, name: str, now: float) -> None:
        self.rung.append((name, now))


def test_what_is_due_fires_in_the_order_of_its_times() -> None:
    timers, bell = Timers(), Bell()
    for name, when in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("later", 9.0)):
        timers.at(when, bell.ring, name)
    assert timers.fire_due(3.5) == 3
    assert bell.rung == [("a", 3.5), ("b", 3.5), ("c", 3.5)]
    assert timers.next_due() == 9.0


def test_timers_of_one_moment_fire_in_the_order_in_which_they_were_set() -> None:
    timers, bell = Timers(), Bell()
    for name in "abcde":
        timers.at(1.0, bell.ring, name)
    timers.fire_due(1.0)
    assert [name for name, _ in bell.rung] == list("abcde")


def test_a_cancelled_timer_does_not_fire() -> None:
    timers, bell = Timers(), Bell()
    timer = timers.at(1.0, bell.ring, "a")
    timers.cancel(timer)
    timers.cancel(timer)
    timers.cancel(None)
    assert (timers.next_due(), timers.fire_due(5.0), len(timers), bell.rung) == (NEVER, 0, 0, [])


def test_a_timer_that_has_fired_can_be_cancelled_without_harm() -> None:
    timers, bell = Timers(), Bell()
    timer = timers.at(1.0, bell.ring, "a")
    timers.at(2.0, bell.ring, "b")
    timers.fire_due(1.0)
    timers.cancel(timer)
    assert len(timers) == 1
    timers.fire_due(2.0)
    assert [name for name, _ in bell.rung] == ["a", "b"]


def test_a_timer_may_set_another_that_is_due_at_once() -> None:
    timers, bell = Timers(), Bell()

    def first(now: float) -> None:
        timers.at(now, bell.ring, "second")

    timers.at(1.0, first)
    assert timers.fire_due(1.0) == 2
    assert bell.rung == [("second", 1.0)]


def test_one_call_fires_no_more_than_it_is_told_to() -> None:
    timers, bell = Timers(), Bell()
    for n in range(10):
        timers.at(1.0, bell.ring, str(n))
    assert (timers.fire_due(1.0, most=4), len(timers), timers.next_due()) == (4, 6, 1.0)


def test_cancelled_timers_take_no_room_for_ever() -> None:
    timers, bell, random = Timers(), Bell(), Random(0)
    kept = [timers.at(random.random(), bell.ring, str(n)) for n in range(100)]
    for _ in range(20_000):
        timers.cancel(timers.at(1000.0 + random.random(), bell.ring, "never"))
    assert len(timers) == len(kept)
    assert len(timers._heap) < 3000
    assert timers.fire_due(2000.0) == len(kept)
