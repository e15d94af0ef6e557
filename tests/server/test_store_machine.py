"""The store against a dict, with reopenings and a disk that fails in between."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from copy import copy
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastworker.lifecycle import OPEN, TERMINAL, State
from fastworker.tasks import DEFAULTS, ErrorInfo, Task
from fastworker_server.storage.recovery import Recovered
from fastworker_server.storage.sqlite import SqliteStore

NOW = 1_800_000_000.0
WORDS = st.sampled_from(["a", "ü", '"quoted"', "", "line\nline", "\x00"])
STATES = st.sampled_from(sorted(set(State) - {State.NEW}))


class StoreMachine(RuleBasedStateMachine):
    """`given`: the tasks as they were given to `save`. `told`: how many callbacks came, of how many."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.tasks: list[Task] = []
        self.given: dict[str, Task] = {}
        self.forgotten: set[str] = set()
        self.asked = self.told = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    @initialize(sync=st.sampled_from(["normal", "full"]))
    def begin(self, sync: Any) -> None:
        self.sync = sync
        self._open()

    def _open(self) -> Recovered:
        self.store = SqliteStore(Path(self.folder.name), self.sync)
        recovered: Recovered = self.run(self.store.open())
        return recovered

    # ---- write ---------------------------------------------------------------------------------------------------

    @rule(args=WORDS, count=st.integers(1, 20))
    def save_new(self, args: str, count: int) -> None:
        for _ in range(count):
            seq = len(self.tasks) + 1
            task = Task(seq, f"00000000-0000-7000-8000-{seq:012}", "add", args, DEFAULTS, "default", seq % 4, NOW)
            task.state = State.QUEUED
            self.tasks.append(task)
            self._save(task)

    @precondition(lambda self: self.given)
    @rule(data=st.data(), state=STATES, result=st.none() | WORDS, error=st.none() | WORDS)
    def change(self, data: st.DataObject, state: State, result: str | None, error: str | None) -> None:
        task = self.tasks[data.draw(st.integers(0, len(self.tasks) - 1))]
        if task.id in self.forgotten or task.state in TERMINAL:
            return
        task.state, task.result, task.error = state, result, ErrorInfo("E", error) if error is not None else None
        task.attempt += 1
        task.finished_at = NOW + task.seq if state in TERMINAL else None
        self._save(task)

    def _save(self, task: Task) -> None:
        self.store.save([task])
        self.given[task.id] = copy(task)
        self.asked += 1
        self.store.when_saved(self._tell)

    def _tell(self) -> None:
        self.told += 1

    @rule()
    def flush(self) -> None:
        self.store.flush()

    @rule()
    def let_time_pass(self) -> None:
        self.run(asyncio.sleep(0))

    @rule()
    def wait_until_saved(self) -> None:
        self.run(self.store.saved())
        assert self.told == self.asked

    # ---- read ----------------------------------------------------------------------------------------------------

    @rule()
    def read(self) -> None:
        self.run(self.store.saved())
        found = self.run(self.store.get_many([task.id for task in self.tasks]))
        for task in self.tasks:
            if task.id in self.forgotten:
                assert found[task.id] == "expired"
            else:
                assert _kept(found[task.id]) == _kept(self.given[task.id])

    @rule(state=st.none() | STATES, limit=st.integers(1, 30), data=st.data())
    def list_pages(self, state: State | None, limit: int, data: st.DataObject) -> None:
        self.run(self.store.saved())
        before = data.draw(st.none() | st.integers(1, len(self.tasks) + 1))
        right = [
            task.id
            for task in reversed(self.given.values())
            if state in (None, task.state) and (before is None or task.seq < before)
        ]
        found = self.run(self.store.list(state, None, None, limit, before))
        assert [task.id for task in found] == sorted(right, reverse=True)[:limit]

    @rule(keep=st.integers(0, 20))
    def forget(self, keep: int) -> None:
        self.run(self.store.saved())
        ended = sorted((task.seq, task.id) for task in self.given.values() if task.state in TERMINAL)
        gone = [task_id for _, task_id in ended[: max(0, len(ended) - keep)]]
        counts = self.run(self.store.forget(keep, 1e9, NOW))
        assert sum(counts.values()) == len(gone)
        for task_id in gone:
            del self.given[task_id]
            self.forgotten.add(task_id)

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        recovered = self._open()
        expected = [_kept(task) for task in sorted(self.given.values(), key=_seq) if task.state in OPEN]
        assert [_kept(task) for task in recovered.tasks] == expected
        ended = [task.state for task in self.given.values() if task.state in TERMINAL]
        assert {s: n for s, n in recovered.counts.items() if n} == {s: ended.count(s) for s in set(ended)}
        assert recovered.next_seq > max((task.seq for task in self.given.values()), default=0)

    @invariant()
    def nothing_is_told_twice(self) -> None:
        assert self.told <= self.asked

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.close()
        self.folder.cleanup()


def _seq(task: Task) -> int:
    return task.seq


def _kept(task: Task) -> tuple[object, ...]:
    return task.seq, task.id, task.args, task.rank, task.state, task.attempt, task.result, task.error, task.finished_at


StoreMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestStoreMachine = StoreMachine.TestCase
