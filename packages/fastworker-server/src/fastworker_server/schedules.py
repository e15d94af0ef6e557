"""The schedules: which tasks the control plane submits by itself, and when.

Pure like the engine, and beside it: every verb takes `now`, runs are submitted with `Engine.submit`, one timer of the
engine wakes it up. Each due time meets one fate: it runs once, or is skipped for a reason that the history names.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from fastworker.errors import ConfigurationError, ScheduleError, TooManySchedules
from fastworker.lifecycle import TERMINAL
from fastworker.protocol import Schedule, Submission
from fastworker.schedule import (
    DUE_HEADER,
    SCHEDULE_HEADER,
    Timing,
    between,
    check_timing,
    describe,
    firing_id,
    last_between,
    next_after,
    next_runs,
)
from fastworker.tasks import Definition, Ties
from fastworker.views import Firing, ScheduleSource, ScheduleState, ScheduleView
from fastworker_server.engine import Engine
from fastworker_server.queue import Moved
from fastworker_server.schedule_record import ScheduleRecord
from fastworker_server.timers import NEVER, Timer, Timers

logger = logging.getLogger("fastworker.schedules")

MOST_SCHEDULES: Final = 100_000
LATE: Final = 60.0
"""Seconds after which a due time counts as missed, though a control plane runs."""
AT_ONCE: Final = 200
"""Schedules that are looked at in one turn of the event loop, and missed runs of one schedule that are made up for."""
BETWEEN_TURNS: Final = 0.001
LONGEST_NAME: Final = 200
LONGEST_ARGS: Final = 65_536

NOT_ENDED: Final = "the run before has not ended"
ONE_OWED: Final = "the run before has not ended, and another waits for that"
MISSED: Final = "missed"
MADE_UP: Final = "made up for the missed ones"
WAITED: Final = "waited for the end of the run before"
PAUSED: Final = "paused"
NOT_IN_CODE: Final = "it was not in the code"
ASKED_FOR: Final = "asked for"
KNOWN: Final = "this run is known already"

Added = Literal["added", "changed", "unchanged"]


class Schedules:
    """All schedules, by name.

    Args:
        engine: takes the runs in, and tells the time.
        show: gets each run before it is submitted, and may give it headers.
    """

    def __init__(self, engine: Engine, show: Callable[[Submission], None] = lambda _: None) -> None:
        self.records: dict[str, ScheduleRecord] = {}
        self._engine = engine
        self._show = show
        self._timers = Timers()
        self._wake: Timer | None = None
        self._firing = False
        self._recovered_at = -math.inf
        self._awaited: dict[str, str] = {}  # tasks whose end lets a run begin, with the name of the schedule
        self._changed: dict[str, ScheduleRecord | None] = {}

    def take_changes(self) -> dict[str, ScheduleRecord | None]:
        """What is to be stored since the last call; None stands for a schedule that was removed."""
        changed, self._changed = self._changed, {}
        return changed

    # ---- where they come from ------------------------------------------------------------------------------------

    def recover(self, records: Iterable[ScheduleRecord], now: float) -> None:
        """Take in the schedules of an earlier control plane: what was due until now has been missed."""
        self._recovered_at = now
        for record in records:
            self.records[record.schedule.name] = record
            if not record.active:
                continue
            if record.owed is not None or record.backlog:
                record.timer = self._timers.at(now, self._go_on, record)
            elif record.next_due is not None:
                record.timer = self._timers.at(record.next_due, self._due, record)
        self._set_wake()

    def announce(self, definitions: Iterable[Definition], now: float) -> None:
        """A worker tells its task functions: those with a schedule have one from now on, under the task's name."""
        for definition in definitions:
            record = self.records.get(definition.name)
            if definition.schedule is not None:
                self._announce(_of(definition, definition.schedule), record, now)
            elif record is not None and record.source == "code" and not record.gone:
                logger.info("schedule %s is not in the code any more: it rests", definition.name)
                record.gone = True
                self._rest(record, NOT_IN_CODE, now)

    def _announce(self, schedule: Schedule, record: ScheduleRecord | None, now: float) -> None:
        try:
            self._check(schedule)
        except (ConfigurationError, TooManySchedules) as error:
            logger.error("the schedule of task %s is not kept: %s", schedule.name, error)
            return
        if record is None:
            self._create(schedule, "code", now)
        elif record.schedule != schedule or record.source != "code" or record.gone:
            self._change(record, schedule, "code", now)

    def add(self, schedule: Schedule, now: float) -> Added:
        """Add a schedule, or put it in the place of one of the same name.

        Raises:
            ConfigurationError: it can't be kept; says what is allowed.
            ScheduleError: the name is that of a schedule in the code.
            TooManySchedules: there are `MOST_SCHEDULES`.
        """
        self._check(schedule)
        record = self.records.get(schedule.name)
        if record is None:
            self._create(schedule, "run time", now)
            return "added"
        self._refuse_if_in_code(record)
        if record.schedule == schedule and record.source == "run time":
            return "unchanged"
        self._change(record, schedule, "run time", now)
        return "changed"

    def _check(self, schedule: Schedule) -> None:
        for what, text in (("schedule", schedule.name), ("task", schedule.task)):
            if not text.strip() or len(text) > LONGEST_NAME:
                raise ConfigurationError(f"the name of a {what} has 1 to {LONGEST_NAME} characters")
        if len(schedule.args) > LONGEST_ARGS:
            raise ConfigurationError(f"the arguments of a schedule have at most {LONGEST_ARGS:,} characters of JSON")
        check_timing(schedule.timing)
        if schedule.name not in self.records and len(self.records) >= MOST_SCHEDULES:
            raise TooManySchedules(f"there are {MOST_SCHEDULES:,} schedules, and no more are kept: remove some")

    def _create(self, schedule: Schedule, source: ScheduleSource, now: float) -> None:
        created = float(math.floor(now))  # times that are easy on the eye
        through = max(math.nextafter(created, -math.inf), now - (schedule.timing.every or 0.0))
        record = ScheduleRecord(schedule, source, created, through)
        self.records[schedule.name] = record
        self._plan(record)

    def _change(self, record: ScheduleRecord, schedule: Schedule, source: ScheduleSource, now: float) -> None:
        if record.gone:
            self._skip(record, record.through, now, NOT_IN_CODE, now)
        if record.schedule.timing != schedule.timing:
            record.fired = 0
            record.owed, record.backlog = None, []
            record.through = max(record.through, now)
        record.schedule, record.source, record.gone = schedule, source, False
        self._plan(record)

    # ---- orders --------------------------------------------------------------------------------------------------

    def pause(self, name: str, now: float) -> bool:
        """Let a schedule rest until `resume`; False if there is none of this name."""
        record = self.records.get(name)
        if record is not None and not record.paused:
            record.paused = True
            self._rest(record, PAUSED, now)
        return record is not None

    def resume(self, name: str, now: float) -> bool:
        """Undo `pause`: what was due meanwhile is skipped. False if there is none of this name."""
        record = self.records.get(name)
        if record is not None and record.paused:
            self._skip(record, record.through, now, PAUSED, now)
            record.paused = False
            self._plan(record)
        return record is not None

    def run_now(self, name: str, task_id: str, now: float) -> bool:
        """Run a schedule's task once, out of turn; False if there is none of this name."""
        record = self.records.get(name)
        if record is None:
            return False
        if self._submit(record, task_id, now, now):
            record.note(Firing(now, now, task_id, None, ASKED_FOR))
            self._changed[name] = record
        return True

    def remove(self, name: str) -> bool:
        """Forget a schedule; False if there is none of this name.

        Raises:
            ScheduleError: it is in the code of a connected worker, and would come back.
        """
        record = self.records.get(name)
        if record is None:
            return False
        self._refuse_if_in_code(record)
        self._timers.cancel(record.timer)
        self._await_nothing(record)
        del self.records[name]
        self._changed[name] = None
        return True

    def _refuse_if_in_code(self, record: ScheduleRecord) -> None:
        name = record.schedule.name
        definition = self._engine.catalog.get(name)
        if record.source == "code" and definition and definition.schedule and self._engine.has_worker_for(name):
            raise ScheduleError(f"schedule {name!r} is in the code, at @task: change it there, or pause it")

    # ---- time ----------------------------------------------------------------------------------------------------

    def _plan(self, record: ScheduleRecord) -> None:
        """Set the timer for the next due time."""
        self._timers.cancel(record.timer)
        timing = record.schedule.timing
        record.timer = None
        record.next_due = next_after(timing, record.through, record.created) if record.active else None
        if record.next_due is not None:
            record.timer = self._timers.at(record.next_due, self._due, record)
        self._changed[record.schedule.name] = record
        self._set_wake()

    def _rest(self, record: ScheduleRecord, why: str, now: float) -> None:
        """Begin nothing more, nor what waits for the end of the last run."""
        for since, until in record.backlog:
            self._skip(record, since, until, why, now)
        if record.owed is not None:
            record.note(Firing(record.owed, now, None, None, why))
        record.owed, record.backlog = None, []
        self._await_nothing(record)
        self._plan(record)

    def _skip(self, record: ScheduleRecord, since: float, until: float, why: str, now: float) -> None:
        """Skip all due times later than `since`, up to and with `until`."""
        first = next_after(record.schedule.timing, since, record.created)
        last = last_between(record.schedule.timing, since, until, record.created)
        if first is not None and last is not None:
            record.note(Firing(first, now, None, last, why))
        record.through = max(record.through, until)

    def _set_wake(self, earliest: float = -math.inf) -> None:
        due = max(self._timers.next_due(), earliest)
        if self._firing or due == NEVER:
            return
        if self._wake is None or self._wake.cancelled or due < self._wake.when:
            self._engine.timers.cancel(self._wake)
            self._wake = self._engine.timers.at(due, self._wake_up)

    def _wake_up(self, now: float) -> None:
        """See to what is due: a few schedules per turn, so that many at once don't hold up everything else."""
        self._firing = True
        try:
            self._timers.fire_due(now, AT_ONCE)
        finally:
            self._firing = False
        self._set_wake(earliest=now + BETWEEN_TURNS)

    # ---- runs ----------------------------------------------------------------------------------------------------

    def _due(self, record: ScheduleRecord, now: float) -> None:
        """A due time has come."""
        missed_until = min(now, max(self._recovered_at, now - LATE))
        if record.next_due is not None and record.next_due <= missed_until:
            self._missed(record, record.next_due, missed_until, now)
        for due in between(record.schedule.timing, record.through, now, record.created):
            record.through = due
            if record.active:
                self._run(record, due, now)
        self._plan(record)

    def _missed(self, record: ScheduleRecord, first: float, until: float, now: float) -> None:
        """Due times from `first` up to `until` have passed unseen: the misfire policy says what becomes of them."""
        timing = record.schedule.timing
        last = last_between(timing, record.through, until, record.created) or first
        since, record.through = record.through, last
        match timing.misfire:
            case "skip":
                record.note(Firing(first, now, None, last, MISSED))
            case "once":
                self._skip(record, since, math.nextafter(last, -math.inf), MISSED, now)
                self._run(record, last, now, MADE_UP)
            case "all":
                record.backlog = [*record.backlog, (since, last)]
                self._make_up(record, now)

    def _make_up(self, record: ScheduleRecord, now: float) -> None:
        """Run what was missed, a few per turn; where the overlap policy is `queue`, one after the other."""
        timing = record.schedule.timing
        for number, due in enumerate(self._backlog(record)):
            if timing.overlap == "queue" and self._await_end(record):
                return
            if number == AT_ONCE:
                self._timers.at(now + BETWEEN_TURNS, self._go_on, record)
                return
            record.backlog = [(due, record.backlog[0][1]), *record.backlog[1:]]
            self._run(record, due, now, MADE_UP)

    def _backlog(self, record: ScheduleRecord) -> Iterator[float]:
        """The due times that are to be made up for. A part of the backlog is dropped when its last one was taken."""
        while record.backlog:
            since, until = record.backlog[0]
            for due in between(record.schedule.timing, since, until, record.created):
                if not record.active:
                    break
                yield due
            record.backlog = record.backlog[1:]

    def _run(self, record: ScheduleRecord, due: float, now: float, why: str | None = None) -> None:
        """Run it for one due time, if the overlap policy lets it."""
        if self._is_open(record.last) and record.last is not None:
            match record.schedule.timing.overlap:
                case "skip":
                    record.note(Firing(due, now, None, None, NOT_ENDED))
                    return
                case "queue" if record.owed is None:
                    record.owed = due
                    self._await_end(record)
                    return
                case "queue":
                    record.note(Firing(due, now, None, None, ONE_OWED))
                    return
                case "cancel_running":
                    self._engine.cancel(record.last, now)
        self._fire(record, due, now, why)

    def _fire(self, record: ScheduleRecord, due: float, now: float, why: str | None = None) -> None:
        task_id = firing_id(record.schedule.name, due)
        if not self._submit(record, task_id, due, now):
            record.note(Firing(due, now, None, None, KNOWN))
            return
        record.fired += 1
        record.last = task_id
        record.note(Firing(due, now, task_id, None, why))

    def _submit(self, record: ScheduleRecord, task_id: str, due: float, now: float) -> bool:
        schedule = record.schedule
        headers = {SCHEDULE_HEADER: schedule.name, DUE_HEADER: datetime.fromtimestamp(due, UTC).isoformat()}
        ties = Ties(schedule.key, schedule.fair_key, schedule=schedule.name)
        submission = Submission(task_id, schedule.task, schedule.args, schedule.options, headers, ties=ties)
        self._show(submission)
        return self._engine.submit(submission, now) is not None

    # ---- runs that wait for the one before -----------------------------------------------------------------------

    def follow(self, moves: Iterable[Moved], now: float) -> None:
        """Tasks have moved: where one has ended that a run waits for, that run begins."""
        if not self._awaited:
            return
        ended = [moved.task.id for moved in moves if moved.after in TERMINAL and moved.task.id in self._awaited]
        for task_id in ended:
            record = self.records.get(self._awaited.pop(task_id, ""))
            if record is not None:
                self._go_on(record, now)

    def _go_on(self, record: ScheduleRecord, now: float) -> None:
        """Begin what waits: first what was missed, then what is owed."""
        if not record.active or self.records.get(record.schedule.name) is not record:
            return
        self._make_up(record, now)
        if not record.backlog and record.owed is not None and not self._await_end(record):
            due, record.owed = record.owed, None
            self._fire(record, due, now, WAITED)
        self._plan(record)

    def _await_end(self, record: ScheduleRecord) -> bool:
        """Whether the last run has not ended; then its end will be told."""
        if record.last is None or not self._is_open(record.last):
            return False
        self._awaited[record.last] = record.schedule.name
        return True

    def _await_nothing(self, record: ScheduleRecord) -> None:
        self._awaited.pop(record.last or "", None)

    def _is_open(self, task_id: str | None) -> bool:
        return task_id is not None and task_id in self._engine.tasks

    # ---- views ---------------------------------------------------------------------------------------------------

    def views(self, name: str | None, after: str | None, limit: int, now: float) -> Sequence[ScheduleView]:
        """Schedules in the order of their names: the one of this name, or the first so many after `after`."""
        if name is not None:
            names = [name] if name in self.records else []
        else:
            names = sorted(found for found in self.records if after is None or found > after)[:limit]
        return [self._view(self.records[name], now) for name in names]

    def _view(self, record: ScheduleRecord, now: float) -> ScheduleView:
        schedule = record.schedule
        most = 5 if schedule.timing.count is None else min(5, schedule.timing.count - record.fired)
        since = max(record.through, now)
        return ScheduleView(
            schedule=schedule,
            source=record.source,
            state=self._state(record),
            known=self._engine.has_worker_for(schedule.task),
            words=describe(schedule.timing),
            next=next_runs(schedule.timing, since, record.created, most) if record.active else [],
            created=record.created,
            fired=record.fired,
            running=record.last if self._is_open(record.last) else None,
            owed=record.owed,
            history=record.history[::-1],
        )

    def _state(self, record: ScheduleRecord) -> ScheduleState:
        if record.gone:
            return "not in the code"
        if record.paused:
            return "paused"
        waits = record.next_due is not None or record.owed is not None or bool(record.backlog)
        return "active" if record.active and waits else "finished"


def _of(definition: Definition, timing: Timing) -> Schedule:
    """The schedule of a task function."""
    name = definition.name
    return Schedule(name, name, timing, key=definition.key, fair_key=definition.fair_key)
