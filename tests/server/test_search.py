"""Searches in a real store, against what is obviously right."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from pathlib import Path

import pytest

from fastworker.lifecycle import TERMINAL, State
from fastworker.search import TaskFilter, parse
from fastworker.tasks import DEFAULTS, PRIORITIES, ErrorInfo, Options, Task, new_task_id
from fastworker_server.searcher import Searcher
from fastworker_server.storage import rows, search, words
from fastworker_server.storage.kinds import Kind
from fastworker_server.storage.migrations import FORMAT
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.tally import Tally

NOW = 1_800_000_000.0
NAMES = ("mail", "resize", "charge")
STATES = (State.QUEUED, State.RUNNING, State.SUCCEEDED, State.SUCCEEDED, State.FAILED, State.CANCELLED)
SEARCHES = (
    "",
    "state:failed",
    "state:queued,running",
    "name:mail",
    "name:mail name:charge state:failed",
    "name:nothing",
    "queue:fast",
    "queue:fast priority:low name:resize",
    "priority:critical,high state:succeeded",
    "worker:w-1",
    "tag:blue",
    "tag:blue tag:round",
    "args:alpha",
    "args:alpha args:17",
    "ALPHA",
    "x",
    "100%",
    "error:timeout",
    "error:TIMEOUT state:failed",
    "timeout beta",
    "type:builtins.ValueError",
    "type:builtins.ValueError name:mail",
    'place:"a.py:1 in work"',
    "took>7",
    "took>7 state:failed queue:slow",
    "after:2027-01-15T08:00:20Z",
    "before:2027-01-15T08:00:20Z after:2027-01-15T08:00:10Z state:succeeded",
    r'"say \\\"hi"',
    '"\\"say" hi',
)


def random_task(seq: int, chance: random.Random) -> Task:
    state = chance.choice(STATES)
    tags = tuple(chance.sample(("blue", "red", "round"), chance.randrange(3)))
    options = Options(tags=tags).over(DEFAULTS) if tags else DEFAULTS
    text = chance.choice(("alpha", "Beta", "gamma 100%", "x", 'say \\"hi\\"'))
    task = Task(
        seq, new_task_id(), chance.choice(NAMES), f'["{text}", {chance.randrange(30)}]', options,
        chance.choice(("fast", "slow")), chance.randrange(4), NOW + seq / 10, state=state,
        worker=chance.choice(("w-1", "w-2")),
    )  # fmt: skip
    if state in TERMINAL:
        task.started_at = NOW + seq
        task.finished_at = task.started_at + chance.randrange(10)
    if state is State.FAILED:
        kind = chance.choice(("builtins.ValueError", "my.Timeout"))
        task.error = ErrorInfo(kind, f"timeout after {seq} beta", "Traceback …", chance.choice(("a.py:1 in work", "")))
    return task


def fits(task: Task, wanted: TaskFilter) -> bool:
    """The same, said as plainly as can be."""
    failed = task.error if task.state is State.FAILED else None
    error = f"{failed.type} {failed.message} {failed.place}".lower() if failed else ""
    args = task.args.lower()
    took = task.finished_at - task.started_at if task.finished_at is not None and task.started_at is not None else 0.0
    return (
        (not wanted.states or task.state in wanted.states)
        and (not wanted.names or task.name in wanted.names)
        and (not wanted.queues or task.queue in wanted.queues)
        and (not wanted.priorities or PRIORITIES[task.rank] in wanted.priorities)
        and wanted.worker in (None, task.worker)
        and set(wanted.tags) <= set(task.options.tags or ())
        and all(word.lower() in args for word in wanted.args)
        and all(word.lower() in error for word in wanted.error)
        and all(w in task.name or w in args or w in error for w in (word.lower() for word in wanted.words))
        and (wanted.type is None or (failed is not None and failed.type == wanted.type))
        and (wanted.place is None or (failed is not None and failed.place == wanted.place))
        and (wanted.before is None or task.submitted_at < wanted.before)
        and (wanted.after is None or task.submitted_at >= wanted.after)
        and (wanted.longer is None or took > wanted.longer)
    )


class Archive:
    """A store with tasks, and the same tasks in a list."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.tally = Tally()
        self.searcher = Searcher(store, self.tally)
        self.tasks: list[Task] = []

    async def fill(self, count: int, seed: int) -> None:
        chance = random.Random(seed)
        new = [random_task(len(self.tasks) + n, chance) for n in range(1, count + 1)]
        self.tasks += new
        self.tally.add(Counter(Kind(task.name, task.queue, task.rank, task.state) for task in new))
        self.store.save(new)
        self.store.indexer.failed(task.seq for task in new if task.state is State.FAILED)
        await self.store.saved()

    async def entered(self) -> None:
        """All words are in the index."""
        while self.store.indexer.words and await self.store.do(self.store.indexer._enter_arguments):
            pass

    def right(self, wanted: TaskFilter) -> list[str]:
        return [task.id for task in reversed(self.tasks) if fits(task, wanted)]

    async def found(self, wanted: TaskFilter, limit: int) -> list[str]:
        """All pages, one after the other."""
        ids: list[str] = []
        before = None
        while True:
            page = await self.searcher.page(wanted, limit, before)
            ids += [task.id for task in page.tasks]
            if page.next is None:
                return ids
            before = page.next


@pytest.fixture(params=["file", "memory", "no index of words"])
async def archive(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Archive]:
    if request.param == "no index of words":
        monkeypatch.setattr(words, "prepare", lambda db: False)
    store = SqliteStore(None if request.param == "memory" else tmp_path)
    await store.open()
    try:
        yield Archive(store)
    finally:
        await store.close()


@pytest.mark.parametrize("limit", [7, 1000])
@pytest.mark.parametrize("entered", ["none", "half", "all"])
async def test_every_search_finds_what_fits_page_by_page(archive: Archive, limit: int, entered: str) -> None:
    await archive.fill(300, seed=1)
    if entered != "none":
        await archive.entered()
    if entered != "all":
        await archive.fill(300, seed=2)
    for text in SEARCHES:
        wanted = parse(text, NOW)
        assert await archive.found(wanted, limit) == archive.right(wanted), text


async def test_the_searches_tried_find_something(archive: Archive) -> None:
    await archive.fill(600, seed=1)
    empty = [text for text in SEARCHES if not archive.right(parse(text, NOW))]
    assert empty == ["name:nothing"]


async def test_a_task_is_found_by_its_id_and_by_the_beginning_of_it(archive: Archive) -> None:
    await archive.fill(50, seed=1)
    task = archive.tasks[7]
    assert await archive.found(parse(task.id, NOW), 10) == [task.id]
    assert task.id in await archive.found(parse(f"id:{task.id[:8]}", NOW), 10)
    assert await archive.found(parse(f"id:{task.id} state:waiting", NOW), 10) == []


async def test_the_facets_of_names_states_queues_and_priorities_are_exact(archive: Archive) -> None:
    await archive.fill(600, seed=1)
    for text in ("", "state:failed", "name:mail", "queue:fast priority:low"):
        wanted = parse(text, NOW)
        mine = [task for task in archive.tasks if fits(task, wanted)]
        facets = await archive.searcher.facets(wanted)
        assert facets.exact
        assert facets.total == len(mine)
        assert facets.states == Counter(task.state.value for task in mine)
        assert facets.names == Counter(task.name for task in mine)
        assert facets.queues == Counter(task.queue for task in mine)
        assert facets.by_name == _by_name(mine)
        assert facets.priorities == Counter(PRIORITIES[task.rank].value for task in mine)


def _by_name(tasks: Iterable[Task]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for task in tasks:
        counts.setdefault(task.name, Counter())[task.state.value] += 1
    return counts


async def test_the_facets_of_other_searches_count_the_newest(archive: Archive) -> None:
    await archive.fill(300, seed=1)
    wanted = parse("args:alpha", NOW)
    facets = await archive.searcher.facets(wanted)
    assert (facets.total, facets.exact) == (len(archive.right(wanted)), True)
    assert facets.by_name == _by_name(task for task in archive.tasks if fits(task, wanted))
    await archive.fill(6000, seed=2)
    facets = await archive.searcher.facets(wanted)
    assert not facets.exact
    assert 0 < facets.total <= 1000


def right_groups(archive: Archive) -> Counter[tuple[str, str, str]]:
    failed = [task for task in archive.tasks if task.state is State.FAILED]
    return Counter((task.name, task.error.type, task.error.place) for task in failed if task.error)


async def test_failures_come_in_groups(archive: Archive) -> None:
    await archive.fill(600, seed=1)
    groups = await archive.searcher.failures(100)
    assert {(group.name, group.type, group.place): group.count for group in groups} == right_groups(archive)
    newest = next(task for task in reversed(archive.tasks) if task.state is State.FAILED)
    assert groups[0].latest_id == newest.id
    assert newest.error is not None
    assert groups[0].message == newest.error.message


async def test_the_tasks_of_a_group_are_read_from_its_index_however_little_time_there_is(archive: Archive) -> None:
    await archive.fill(600, seed=1)
    await archive.store.indexer.catch_up()
    for (name, kind, place), count in right_groups(archive).items():
        wanted = TaskFilter(states=(State.FAILED,), names=(name,), type=kind, place=place)
        look = partial(search.find, wanted=wanted, kinds=[(name, State.FAILED)], limit=1000, before=None, words=True)
        found = await archive.store.read(partial(look, seconds=0.0))
        assert (len(found.seqs), found.complete) == (count, True)


async def test_a_task_that_is_queued_again_is_no_failure_any_more(archive: Archive) -> None:
    await archive.fill(100, seed=1)
    failed = [task for task in archive.tasks if task.state is State.FAILED]
    before = sum(group.count for group in await archive.searcher.failures(100))
    failed[0].state, failed[0].finished_at = State.QUEUED, None
    archive.store.save([failed[0]])
    archive.store.indexer.failed_no_more([failed[0].seq])
    assert sum(group.count for group in await archive.searcher.failures(100)) == before - 1
    assert failed[0].id not in await archive.found(parse("error:timeout", NOW), 50)


async def test_a_task_that_is_queued_again_and_fails_before_the_index_is_written_is_one_failure(
    archive: Archive,
) -> None:
    await archive.fill(100, seed=1)
    before = right_groups(archive)
    failed = [task.seq for task in archive.tasks if task.state is State.FAILED]
    await archive.searcher.failures(100)
    archive.store.indexer.failed_no_more(failed)
    archive.store.indexer.failed(failed)
    groups = await archive.searcher.failures(100)
    assert {(group.name, group.type, group.place): group.count for group in groups} == before


async def test_what_is_forgotten_is_found_no_more(archive: Archive) -> None:
    await archive.fill(200, seed=1)
    await archive.entered()
    await archive.searcher.failures(1)
    gone = await archive.store.forget(keep=10, keep_for=1e9, now=NOW)
    archive.tally.remove(gone)
    ended = [task for task in archive.tasks if task.finished_at is not None]
    archive.tasks = [task for task in archive.tasks if task not in ended[:-10]]
    for text in SEARCHES:
        wanted = parse(text, NOW)
        assert await archive.found(wanted, 1000) == archive.right(wanted), text
    groups = await archive.searcher.failures(100)
    assert {(group.name, group.type, group.place): group.count for group in groups} == right_groups(archive)


async def test_the_words_are_entered_by_themselves(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    archive = Archive(store)
    try:
        await archive.fill(1000, seed=1)
        deadline = time.monotonic() + 20
        while await store.read(words.mark) < 1000:
            assert time.monotonic() < deadline
            await store.saved()
    finally:
        await store.close()


async def test_failures_that_a_crash_kept_from_the_index_are_entered_at_the_next_start(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path)
    await first.open()
    archive = Archive(first)
    chance = random.Random(1)
    first.save([random_task(seq, chance) for seq in range(1, 100)])
    await first.close()
    second = SqliteStore(tmp_path)
    await second.open()
    try:
        groups = await Searcher(second, archive.tally).failures(100)
    finally:
        await second.close()
    with sqlite3.connect(tmp_path / "queue.db") as db:
        failed = db.execute("SELECT count(*) FROM tasks WHERE state = 'failed'").fetchone()[0]
    assert failed > 5
    assert sum(group.count for group in groups) == failed


async def test_a_store_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    tasks = [random_task(seq, random.Random(seq)) for seq in range(1, 100)]
    make_old_store(tmp_path, tasks)
    store = SqliteStore(tmp_path)
    recovered = await store.open()
    archive = Archive(store)
    archive.tasks = tasks
    archive.tally.add(recovered.kinds)
    archive.tally.add(Counter(Kind(task.name, task.queue, task.rank, task.state) for task in recovered.tasks))
    try:
        for text in SEARCHES:
            wanted = parse(text, NOW)
            assert await archive.found(wanted, 1000) == archive.right(wanted), text
    finally:
        await store.close()
    with sqlite3.connect(tmp_path / "queue.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)


LATER = ("ties", "workflow", "unique_until", "inputs", "history")
"""Columns that the first format did not have."""


def make_old_store(folder: Path, tasks: Sequence[Task]) -> None:
    with sqlite3.connect(folder / "queue.db") as db:
        db.executescript(rows.SCHEMA)
        first = [name for name in rows.COLUMNS.split(", ") if name not in LATER]
        for task in tasks:
            row = dict(zip(rows.COLUMNS.split(", "), rows.insert_row(task), strict=True))
            marks = ", ".join("?" * len(first))
            db.execute(f"INSERT INTO tasks ({', '.join(first)}) VALUES ({marks})", [row[name] for name in first])
    db.close()
