"""What people do with schedules: pause them, run them now, change them in the code, end them."""

from __future__ import annotations

from typing import Any

import pytest

from fastworker.errors import ConfigurationError, ScheduleError, TooManySchedules
from fastworker.lifecycle import State
from fastworker.limits import TaskLimits
from fastworker.protocol import Schedule
from fastworker.schedule import Timing
from fastworker.tasks import Definition
from fastworker.views import ScheduleView
from fastworker_server import schedules as schedules_module
from fastworker_server.schedules import NOT_ENDED, NOT_IN_CODE, PAUSED, Schedules
from tests.server.stage import Stage, hello

MINUTE = Timing(every=60.0)


class Timetable(Stage):
    """A stage with schedules, and a worker that does their tasks at once unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.schedules = Schedules(self.engine)
        self.join(slots=100)
        self.ran: list[str] = []

    def add(self, timing: Timing, name: str = "report") -> str:
        return self.schedules.add(Schedule(name, "add", timing), self.now)

    def announce(self, *definitions: Definition) -> None:
        """A worker comes with this code."""
        names = [definition.name for definition in definitions]
        introduction = hello("coded", 10, *names)
        introduction.definitions = list(definitions)
        self.engine.join(introduction, self.now)
        self.schedules.announce(definitions, self.now)

    def live(self, seconds: float, *, reports: bool = True) -> None:
        """Time passes; what is due runs, and ends at once."""
        for _ in range(round(seconds)):
            self.advance(1.0)
            for _, task_id, _ in self.dispatch():
                self.ran.append(task_id)
                if reports:
                    self.report(task_id)
            moves, self.engine.outbox = self.engine.outbox, []
            self.schedules.follow(moves, self.now)

    def view(self, name: str = "report") -> ScheduleView:
        [view] = self.schedules.views(name, None, 1, self.now)
        return view

    def fates(self, name: str = "report") -> list[str | None]:
        """Why each of its runs came or did not come, the oldest first; None: it ran as it should."""
        return [firing.why for firing in reversed(self.view(name).history)]


@pytest.fixture
def table() -> Timetable:
    return Timetable()


def test_what_is_due_while_it_is_paused_is_skipped_and_the_history_says_so(table: Timetable) -> None:
    table.add(MINUTE)
    table.live(1)
    assert table.schedules.pause("report", table.now)
    assert (table.view().state, table.view().next) == ("paused", [])
    table.live(180)
    assert len(table.ran) == 1
    assert table.schedules.resume("report", table.now)
    table.live(60)
    assert len(table.ran) == 2
    assert table.fates() == [None, PAUSED, None]
    [paused] = [firing for firing in table.view().history if firing.why == PAUSED]
    assert (paused.until or 0.0) - paused.due == 120.0, "three runs were left out, in one entry"


def test_it_runs_now_though_it_is_paused_and_keeps_its_times(table: Timetable) -> None:
    table.add(MINUTE)
    due = table.view().next[0]
    table.schedules.pause("report", table.now)
    assert table.schedules.run_now("report", "now", table.now)
    table.live(1)
    assert table.ran == ["now"]
    assert table.view().fired == 0
    table.schedules.resume("report", table.now)
    assert table.view().next[0] == due


def test_it_ends_after_so_many_runs(table: Timetable) -> None:
    table.add(Timing(every=60.0, count=3))
    table.live(61)
    assert len(table.view().next) == 1
    table.live(600)
    assert (len(table.ran), table.view().fired, table.view().state) == (3, 3, "finished")


def test_one_that_has_vanished_from_the_code_rests_until_it_is_back(table: Timetable) -> None:
    coded = Definition("tick", schedule=MINUTE)
    table.announce(coded)
    table.live(1)
    table.announce(Definition("tick"))
    assert (table.view("tick").state, table.view("tick").next) == ("not in the code", [])
    table.live(120)
    assert len(table.ran) == 1
    table.announce(coded)
    table.live(60)
    assert len(table.ran) == 2
    assert table.fates("tick") == [None, NOT_IN_CODE, None]


def test_other_times_in_the_code_hold_from_then_on(table: Timetable) -> None:
    table.announce(Definition("tick", schedule=MINUTE))
    table.live(1)
    table.announce(Definition("tick", schedule=Timing(every=600.0)))
    table.live(300)
    assert len(table.ran) == 1
    assert table.view("tick").words == "Every 10 minutes"


def test_a_run_is_left_out_while_the_one_before_goes_on(table: Timetable) -> None:
    table.add(MINUTE)
    table.live(150, reports=False)
    [running] = table.ran
    assert table.view().running == running
    assert table.fates() == [None, NOT_ENDED]
    table.report(running)
    table.live(60)
    assert len(table.ran) == 2


def test_a_new_run_can_end_the_one_before(table: Timetable) -> None:
    table.add(Timing(every=60.0, overlap="cancel_running"))
    table.live(1, reports=False)
    [first] = table.ran
    table.live(60, reports=False)
    assert [token.id for _, token in table.engine.stops] == [first]
    table.report(first, "cancelled")
    assert table.state(first) is State.CANCELLED
    assert len(table.ran) == 2


def test_one_in_the_code_is_neither_replaced_nor_removed(table: Timetable) -> None:
    table.announce(Definition("tick", schedule=MINUTE))
    with pytest.raises(ScheduleError, match="is in the code"):
        table.schedules.remove("tick")
    with pytest.raises(ScheduleError, match="is in the code"):
        table.add(MINUTE, "tick")


def test_adding_it_again_changes_it_or_nothing(table: Timetable) -> None:
    assert table.add(MINUTE) == "added"
    assert table.add(MINUTE) == "unchanged"
    assert table.add(Timing(every=30.0)) == "changed"
    assert table.schedules.remove("report")
    assert not table.schedules.remove("report")
    table.live(120)
    assert table.ran == []


@pytest.mark.parametrize("order", ["pause", "resume", "run_now"])
def test_an_order_for_none_of_this_name_says_so(table: Timetable, order: str) -> None:
    arguments: tuple[Any, ...] = ("task", table.now) if order == "run_now" else (table.now,)
    assert getattr(table.schedules, order)("nobody", *arguments) is False


def test_limits_per_key_hold_for_the_runs_of_schedules(table: Timetable) -> None:
    table.limit("add", TaskLimits(max_concurrency=1))
    for name, key in (("anna's", "anna"), ("anna's other", "anna"), ("ben's", "ben")):
        table.schedules.add(Schedule(name, "add", Timing(every=60.0, count=1), key=key, fair_key=key), table.now)
    table.live(1, reports=False)
    running = {table.task(task_id).ties for task_id in table.ran}
    assert {(ties.key, ties.fair_key) for ties in running} == {("anna", "anna"), ("ben", "ben")}
    assert len(table.ran) == 2


def test_the_runs_of_a_schedule_in_the_code_have_its_key(table: Timetable) -> None:
    table.announce(Definition("nightly", schedule=MINUTE, key="anna", fair_key="tenant"))
    table.live(1)
    [ran] = [table.task(task_id) for task_id in table.ran]
    assert (ran.ties.key, ran.ties.fair_key) == ("anna", "tenant")


def test_there_is_an_end_to_how_many_are_kept(table: Timetable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules_module, "MOST_SCHEDULES", 2)
    table.add(MINUTE, "one")
    table.add(MINUTE, "two")
    with pytest.raises(TooManySchedules, match="remove some"):
        table.add(MINUTE, "three")
    assert table.add(Timing(every=5.0), "two") == "changed"


def test_a_name_or_arguments_that_are_too_long_are_refused(table: Timetable) -> None:
    with pytest.raises(ConfigurationError, match="1 to 200 characters"):
        table.add(MINUTE, "x" * 201)
    with pytest.raises(ConfigurationError, match="65,536"):
        table.schedules.add(Schedule("big", "add", MINUTE, args='"' + "x" * 70_000 + '"'), table.now)
