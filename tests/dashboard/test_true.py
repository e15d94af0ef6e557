"""Each count is true, beside a ledger and a witness of the test's own, while workers and control planes are killed."""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastworker_server.pump import KEEP_COUNTS_EVERY
from tests.dashboard.ledger import HELD, Ledger, Load, Witness, without_zeros
from tests.dashboard.site import Site, running_site
from tests.support.cluster import Program
from tests.support.waiting import until

TILE = re.compile(r'data-state="(\w+)">([\d\u202f]+)<')
VERSION = re.compile(r'data-version="(\d+)"')
CELL = re.compile(r'<td class="n">([\d\u202f]+)</td>')
ROW = re.compile(r"<tr><th scope=\"row\">\d\d:\d\d:\d\d</th>(.*?)</tr>")
PAGE = {"accept": "text/html"}
STORED = KEEP_COUNTS_EVERY + 0.5
"""Seconds before a kill from which on the charts may have missed something."""


@dataclass(frozen=True, slots=True)
class Size:
    """How often the control plane is killed, and how often the counts are looked at before each time."""

    rounds: int
    samples: int
    kill_worker_every: int


FULL = Size(rounds=20, samples=50, kill_worker_every=10)
SHORT = Size(rounds=2, samples=10, kill_worker_every=10)


@pytest.fixture(scope="module")
def size(request: pytest.FixtureRequest) -> Size:
    return FULL if request.config.getoption("--full") else SHORT


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Site]:
    """A control plane without workers of its own; no task fails for a worker that was killed."""
    with running_site(tmp_path, "--processes", "0", FASTWORKER_MAX_CRASHES="1000") as site:
        yield site


class Shop:
    """Kills and starts."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._port = site.url.rpartition(":")[2]
        self._control_plane = site.program
        self._workers: list[Program] = []
        self._count = 0
        self.killed_at = 0.0
        for _ in range(2):
            self._hire()

    def _hire(self) -> None:
        self._count += 1
        self._workers.append(self.site.cluster.worker("--concurrency", "4", name=f"w{self._count}"))

    def kill_worker(self) -> None:
        """kill -9 of the one that has been there for longest; another one comes."""
        self._workers.pop(0).kill()
        self._hire()

    def kill_control_plane(self) -> None:
        """kill -9, and a new one on the same store and the same ports."""
        self._control_plane.kill()
        self.killed_at = time.time()
        self._control_plane = self.site.cluster.start(
            "--processes", "0", wait=False, FASTWORKER_DASHBOARD="true", FASTWORKER_DASHBOARD_PORT=self._port,
            FASTWORKER_MAX_CRASHES="1000",
        )  # fmt: skip
        until(self._answers, 30, "the dashboard")

    def _answers(self) -> bool:
        try:
            return self.site.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


# ---- what the pages say --------------------------------------------------------------------------------------------


def number(text: str) -> int:
    return int(text.replace("\u202f", ""))


def overview(site: Site) -> tuple[int, dict[str, int]]:
    """The version of the landing page, and its counts."""
    html = site.http.get("/", headers=PAGE).text
    found = VERSION.search(html)
    assert found is not None, html
    return int(found[1]), {state: number(count) for state, count in TILE.findall(html)}


def charted(site: Site) -> tuple[int, int]:
    """All that is in the table of the charts of a day: done, failed."""
    rows = ROW.findall(site.http.get("/?span=24h", headers=PAGE).text)
    cells = [[number(cell) for cell in CELL.findall(row)] for row in rows]
    assert cells
    return sum(row[0] for row in cells), sum(row[1] for row in cells)


def metric(site: Site, name: str, key: str, **labels: str) -> dict[str, int]:
    """The values of a metric by one of its labels."""
    families = text_string_to_metric_families(site.http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    chosen = [sample for sample in samples if labels.items() <= sample.labels.items()]
    return without_zeros({sample.labels[key]: sample.value for sample in chosen})


def listed(site: Site) -> Counter[str]:
    """How often each task is listed, from the newest page to the oldest."""
    found: Counter[str] = Counter()
    before = None
    while True:
        page = site.json("/api/v1/tasks", limit=1000, **({} if before is None else {"before": before}))
        found.update(task["id"] for task in page["tasks"])
        before = page["next"]
        if before is None:
            return found


def drained(site: Site) -> None:
    """Wait until nothing is open."""
    opened = "waiting", "scheduled", "queued", "running", "retrying"
    until(lambda: not any(site.json("/api/v1/stats")["states"].get(state) for state in opened), 60, "the end of all")


# ---- the judgement -------------------------------------------------------------------------------------------------


def check_states(site: Site, ledger: Ledger) -> None:
    """Every place that counts tasks says what the ledger says, and so does the file."""
    wanted = ledger.by_state()
    assert overview(site)[1].items() >= {"succeeded": wanted["succeeded"], "failed": wanted["failed"]}.items()
    activity = site.json("/api/v1/activity")
    by_name = Counter[str]()
    for known in activity["types"]:
        by_name.update(known["states"])
    for said in (
        site.json("/api/v1/stats")["states"],
        activity["states"],
        by_name,
        site.json("/api/v1/facets")["states"],
        site.json("/api/status")["states"],
        metric(site, "fastworker_tasks", "state"),
        in_the_file(site),
    ):
        assert without_zeros(said) == wanted
    for state in wanted:
        assert site.json("/api/v1/facets", q=f"state:{state}")["names"] == ledger.by_name(state)
    assert listed(site) == Counter(ledger.states.keys())


def in_the_file(site: Site) -> dict[str, int]:
    """What the store holds, read past the control plane."""
    with sqlite3.connect(f"file:{site.cluster.folder / '.fastworker' / 'queue.db'}?mode=ro", uri=True) as db:
        return dict(db.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall())


def check_journal(site: Site, ledger: Ledger) -> None:
    """What ran was submitted, and what has to have run did."""
    ran = {event.task for event in site.cluster.journal.events("start")}
    named = {task for task, name in ledger.names.items() if name in ("work", "nap", "fail", "flaky")}
    assert ran == named


def check_sums(site: Site, ledger: Ledger) -> None:
    """Before the control plane was ever killed: the charts and the counters have each end once."""
    wanted = ledger.by_state()
    day = site.json("/api/v1/activity")["series"]["24h"]
    assert sum(day["submitted"]) == len(ledger.states)
    assert (sum(day["succeeded"]), sum(day["failed"])) == (wanted["succeeded"], wanted["failed"]) == charted(site)
    for state in ("succeeded", "failed"):
        assert metric(site, "fastworker_tasks_ended_total", "name", state=state) == ledger.by_name(state)


def check_history(site: Site, ledger: Ledger, killed_at: float, before: int) -> None:
    """A kill takes no more from the charts than what was submitted right before it; earlier ones took `before`."""
    charts = sum(site.json("/api/v1/activity")["series"]["24h"]["submitted"])
    late = ledger.submitted_by(killed_at) - ledger.acknowledged_at(killed_at - STORED)
    assert len(ledger.states) - before - late <= charts <= len(ledger.states)


# ---- the story -----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(1200)
def test_every_count_is_true_while_workers_and_the_control_plane_are_killed(
    shop: Site, size: Size, capsys: pytest.CaptureFixture[str]
) -> None:
    crew = Shop(shop)
    ledger = Ledger(shop.cluster, seed=5)
    began, sampled, missing = time.monotonic(), 0, 0
    for number_of_round in range(size.rounds):
        witness = Witness(shop.cluster.client.client, ledger.states)
        with Load(ledger):
            for sample in range(size.samples):
                if sample % size.kill_worker_every == size.kill_worker_every // 2:
                    crew.kill_worker()
                sampled += look(shop, witness)
                newest = list(ledger.states)[-1:]
                assert all(shop.json(f"/api/v1/tasks/{task}")["id"] == task for task in newest)
        witness.stop()
        drained(shop)
        if number_of_round == 0:
            check_sums(shop, ledger)
        with Load(ledger):
            more = len(ledger.states) + 200
            until(lambda more=more: len(ledger.states) > more, 30, "more tasks")  # type: ignore[misc]
            crew.kill_control_plane()
        drained(shop)
        check_states(shop, ledger)
        check_journal(shop, ledger)
        check_history(shop, ledger, crew.killed_at, missing)
        missing = len(ledger.states) - sum(shop.json("/api/v1/activity")["series"]["24h"]["submitted"])
    with capsys.disabled():
        print(
            f"\n{sampled} samples in {time.monotonic() - began:.0f} s, {len(ledger.states)} tasks, "
            f"{size.rounds} kills of the control plane: every count was true"
        )
    assert shop.json("/api/v1/activity")["paused_queues"] == [HELD]


def look(site: Site, witness: Witness) -> int:
    """One sample: the page and the API, each beside the witness at its own version."""
    version, tiles = overview(site)
    truth = witness.at(version)
    assert without_zeros(tiles) == {state: count for state, count in truth.items() if state in tiles}
    activity = site.json("/api/v1/activity")
    assert without_zeros(activity["states"]) == witness.at(activity["version"])
    stats = site.json("/api/v1/stats")
    assert without_zeros(stats["states"]) == witness.at(stats["version"])
    return 3
