"""Ten years of cron in three time zones, with downtimes and stalls: each due time meets one fate, as the policy says.

What is due is what cronsim lists by itself. Nothing here waits: the test has the clock.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from fastworker.protocol import Outcome, Schedule, Submission, Token
from fastworker.schedule import Misfire, Overlap, Timing
from fastworker.tasks import Task
from fastworker.views import Firing
from fastworker_server import schedules as reasons
from fastworker_server.engine import Engine
from fastworker_server.queue import Patience
from fastworker_server.schedule_record import ScheduleRecord
from fastworker_server.schedules import LATE, Schedules
from fastworker_server.storage import schedule_rows
from fastworker_server.workers import WorkerPlace
from tests.server.stage import hello

DAY = 86_400.0
BEGIN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
END = datetime(2036, 1, 1, tzinfo=UTC).timestamp()
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
Policies = list[tuple[Misfire, Overlap]]
POLICIES: Policies = [(misfire, overlap) for misfire in get_args(Misfire) for overlap in get_args(Overlap)]


@dataclass
class Gap:
    """A time in which nobody looks at the clock. `down`: no control plane runs; else it is there, but stalled."""

    begin: float
    end: float
    down: bool
    torn: bool = False  # killed before its last commit


@dataclass
class History:
    """What became of the due times of one schedule."""

    fates: list[Firing] = field(default_factory=list)

    def fate_of(self, due: float) -> list[Firing]:
        return [fate for fate in self.fates if fate.due <= due <= (fate.until or fate.due)]


class Decade:
    """A control plane that is killed and stalled, its store, one worker, and what became of each due time."""

    def __init__(self, cron: str, policies: Policies, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.random = Random(seed)
        self.now = BEGIN
        self.store: dict[str, tuple[str, str, str]] = {}
        self.tasks: dict[str, Task] = {}  # open ones, as they are committed
        self.runs: Counter[str] = Counter()
        self.histories: dict[str, History] = defaultdict(History)
        self.noted: list[tuple[str, Firing]] = []
        self.ends: list[tuple[float, str]] = []
        self.reported: list[str] = []
        self.last: dict[str, str] = {}
        self.gaps = sorted(self._gaps(), key=lambda gap: gap.begin)
        note = ScheduleRecord.note

        def note_it(record: ScheduleRecord, firing: Firing) -> None:
            self.noted.append((record.schedule.name, firing))
            note(record, firing)

        patch.setattr(ScheduleRecord, "note", note_it)
        self.timings = {
            f"{zone} {misfire} {overlap}": Timing(cron=cron, tz=zone, misfire=misfire, overlap=overlap)
            for zone, (misfire, overlap) in itertools.product(ZONES, policies)
        }
        self.boot()
        for name, timing in self.timings.items():
            self.schedules.add(Schedule(name, "work", timing), self.now)
        self.commit()

    def _gaps(self) -> Iterator[Gap]:
        """Sixty downtimes and stalls of ten seconds to a month, and one round each change of the clock."""
        for _ in range(60):
            begin = self.random.uniform(BEGIN + DAY, END - 40 * DAY)
            length = 10.0 ** self.random.uniform(1.0, 6.4)
            yield Gap(begin, begin + length, self.random.random() < 0.7, self.random.random() < 0.5)
        for zone in map(ZoneInfo, ZONES):
            days = [BEGIN + n * DAY for n in range(3600)]
            for day, after in itertools.pairwise(days):
                offsets = [datetime.fromtimestamp(at, zone).utcoffset() for at in (day, after)]
                if offsets[0] != offsets[1]:
                    begin = day + self.random.uniform(0.0, DAY)
                    yield Gap(begin, begin + self.random.uniform(60.0, DAY), self.random.random() < 0.5)

    # ---- the control plane ---------------------------------------------------------------------------------------

    def boot(self) -> None:
        self.engine = Engine(Patience(lease=END, silence=END), Random(0), 1 + sum(self.runs.values()))
        self.schedules = Schedules(self.engine)
        submit = self.engine.submit

        def submit_once(submission: Submission, now: float) -> Task | None:
            task = submit(submission, now)
            if task is not None:
                self.started.append(task)
            return task

        self.started: list[Task] = []
        self.engine.submit = submit_once  # type: ignore[method-assign]
        self.engine.recover(self.tasks.values(), [WorkerPlace("w", "host", 1)], self.now)
        records = [schedule_rows.record_of(row[1], row[2]) for row in self.store.values()]
        self.schedules.recover(records, self.now)
        holding = [Token(task.id, task.attempt) for task in self.tasks.values()]
        self.worker, dropped = self.engine.join(hello("w", 10_000_000, "work", holding=holding), self.now)
        assert not dropped

    def commit(self) -> None:
        """What the pump does after each turn: one transaction for tasks and schedules."""
        for name, row in schedule_rows.rows_of(self.schedules.take_changes()).items():
            assert row is not None
            self.store[name] = row
        for name, firing in self.noted:
            self.histories[name].fates.append(firing)
        for task in self.started:
            self.runs[task.id] += 1
            self.check_overlap(task)
            rare = self.random.random() < 0.1
            heapq.heappush(self.ends, (self.now + self.random.uniform(0.0, (3 * DAY if rare else 3600.0)), task.id))
        self.noted, self.started = [], []
        self.tasks = {task.id: copy(task) for task in self.engine.tasks.values()}
        self.reported = []
        self.engine.outbox.clear()

    def check_overlap(self, task: Task) -> None:
        """Where the policy is against it, no two runs of a schedule are open at once."""
        name = (task.headers or {})["fastworker-schedule"]
        if not name.endswith(("skip", "queue")):
            return
        before = self.last.get(name)
        assert before is None or before not in self.engine.tasks, f"{name}: two runs at once"
        self.last[name] = task.id

    def turn(self) -> None:
        """One turn of the control plane."""
        while self.ends and self.ends[0][0] <= self.now:
            _, task_id = heapq.heappop(self.ends)
            self.reported.append(task_id)
            task = self.engine.tasks.get(task_id)
            if task is not None and task.worker == "w":
                outcome = Outcome(task_id, task.attempt, "succeeded", self.now, 1.0, "null")
                outcome.status = "cancelled" if task.cancelling else "succeeded"
                self.engine.report(self.worker, [outcome], self.now)
        self.engine.heard(self.worker, self.now)
        self.engine.timers.fire_due(self.now)
        self.schedules.follow(self.engine.outbox, self.now)
        list(self.engine.dispatch(self.now))
        for _, token in self.engine.stops:
            heapq.heappush(self.ends, (self.now, token.id))
        self.engine.stops.clear()

    def play(self) -> None:
        """All ten years."""
        for gap in self.gaps:
            if gap.begin < self.now:
                gap.end = gap.begin  # inside another
                continue
            self.run_until(gap.begin)
            self.now = gap.end
            if gap.down:
                self.boot()
                self.settle()
        self.run_until(END)

    def run_until(self, moment: float) -> None:
        while (due := min(self.engine.timers.next_due(), self.ends[0][0] if self.ends else math.inf)) <= moment:
            self.now = max(self.now, due)
            if self.now > moment:
                break
            self.turn()
            if self.torn_at(moment):
                return
            self.commit()

    def torn_at(self, moment: float) -> bool:
        """Whether the control plane dies right after this turn, before it could commit it."""
        gap = next((gap for gap in self.gaps if gap.begin == moment), None)
        if gap is None or not (gap.down and gap.torn) or not self.started or self.now < moment - 2 * DAY:
            return False
        for task_id in self.reported:  # the worker keeps what was not recorded
            heapq.heappush(self.ends, (self.now, task_id))
        self.noted, self.started, self.reported = [], [], []
        gap.begin = self.now
        return True

    def settle(self) -> None:
        self.turn()
        self.commit()

    # ---- the verdict ---------------------------------------------------------------------------------------------

    def check(self, cron: str) -> Counter[str]:
        """Every due time has one fate that its policy allows; how many met which."""
        seen: Counter[str] = Counter()
        for zone in ZONES:
            due_times = list_of_the_library(cron, zone)
            for name, timing in self.timings.items():
                if timing.tz == zone:
                    seen += self.check_schedule(name, timing, due_times)
        assert set(self.runs.values()) == {1}
        return seen

    def check_schedule(self, name: str, timing: Timing, due_times: list[float]) -> Counter[str]:
        seen: Counter[str] = Counter()
        record = self.schedules.records[name]
        fates = sorted(self.histories[name].fates, key=lambda fate: fate.due)
        expected = [due for due in due_times if due not in self.waiting(record)]
        ran = [fate.due for fate in fates if fate.task is not None]
        assert len(ran) == len(set(ran)) == len({fate.task for fate in fates if fate.task is not None})
        covered = Counter(
            due for fate in fates for due in due_times_within(due_times, fate.due, fate.until or fate.due)
        )
        assert covered == Counter(dict.fromkeys(expected, 1)), name
        assert {fate.due for fate in fates} <= set(due_times), name
        for fate in fates:
            self.check_fate(fate, timing, due_times)
            seen[fate.why or "ran"] += 1
        return seen

    def waiting(self, record: ScheduleRecord) -> set[float]:
        """What is still to come at the end of the ten years."""
        timing = record.schedule.timing
        due_times = list_of_the_library(timing.cron or "", timing.tz)
        dues = {due for since, until in record.backlog for due in due_times_within(due_times, since + 0.5, until)}
        return dues | ({record.owed} if record.owed is not None else set())

    def unseen(self, moment: float) -> bool:
        """Whether nobody looked at the clock then."""
        return any(gap.begin <= moment <= gap.end for gap in self.gaps)

    def check_fate(self, fate: Firing, timing: Timing, due_times: list[float]) -> None:
        match fate.why:
            case None:
                assert fate.at - fate.due <= LATE
            case reasons.MISSED:
                assert timing.misfire != "all"
                assert all(map(self.unseen, due_times_within(due_times, fate.due, fate.until or fate.due)))
            case reasons.MADE_UP:
                assert timing.misfire != "skip"
                assert self.unseen(fate.due)
            case reasons.NOT_ENDED:
                assert timing.overlap == "skip"
            case reasons.ONE_OWED | reasons.WAITED:
                assert timing.overlap == "queue"
            case other:
                raise AssertionError(other)


_lists: dict[tuple[str, str], list[float]] = {}


def list_of_the_library(cron: str, zone: str) -> list[float]:
    """What cronsim lists for the ten years."""
    if (cron, zone) not in _lists:
        start = datetime.fromtimestamp(BEGIN, ZoneInfo(zone))
        found = (moment.timestamp() for moment in CronSim(cron, start))
        _lists[cron, zone] = list(itertools.takewhile(lambda due: due <= END, found))
    return _lists[cron, zone]


def due_times_within(due_times: list[float], first: float, last: float) -> list[float]:
    return due_times[bisect_left(due_times, first) : bisect_right(due_times, last)]


@pytest.mark.parametrize(
    ("cron", "policies"),
    [
        pytest.param("15 2 * * SUN", POLICIES, id="on Sundays, at a time that a change of the clock skips or repeats"),
        pytest.param("10 0,12 * * *", [("all", "queue")], id="twice a day"),
        pytest.param("0 9 * * 1-5", [("once", "skip")], id="working days"),
    ],
)
def test_ten_years(cron: str, policies: Policies, monkeypatch: pytest.MonkeyPatch) -> None:
    decade = Decade(cron, policies, 7, monkeypatch)
    decade.play()
    seen = decade.check(cron)
    print(cron, len(list_of_the_library(cron, ZONES[0])), dict(seen))
    assert seen["ran"] > 5000
    assert seen[reasons.MADE_UP] > 50
