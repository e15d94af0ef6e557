"""Live and calm: what somebody selects, reads or has scrolled to stays where it is; and it comes back by itself."""

from __future__ import annotations

import threading
import time

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenTab
from tests.dashboard.site import Site, running_site
from tests.support.cluster import Cluster
from tests.support.waiting import until

STATE = """() => ({
  selected: [...document.querySelectorAll('input[name=ids]:checked')].map((box) => box.value),
  focused: document.activeElement?.closest('tr')?.id ?? document.activeElement?.id,
  scrolled: Math.round(scrollY),
  rows: [...document.querySelectorAll('#rows > tr')].map((row) => row.id).join(),
  open: document.querySelectorAll('details[open]').length,
})"""


class Load:
    """Tasks at a rate, from a thread, until it is told to stop."""

    def __init__(self, cluster: Cluster, per_second: int) -> None:
        self._cluster = cluster
        self._each = max(1, per_second // 10)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.submitted = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        client = self._cluster.client
        while not self._stop.is_set():
            began = time.monotonic()
            client.submit_many("add", [(n, 1) for n in range(self._each)])
            self.submitted += self._each
            self._stop.wait(max(0.0, 0.1 - (time.monotonic() - began)))


@pytest.fixture
def size(request: pytest.FixtureRequest) -> tuple[int, float]:
    """Tasks per second, and for how long."""
    return (1000, 60.0) if request.config.getoption("--full") else (300, 4.0)


def first_row(page: Page) -> str | None:
    return page.locator("#rows > tr").first.get_attribute("id")


@pytest.mark.timeout(200)
def test_under_load_nothing_moves_under_somebodys_hands(site: Site, tab: OpenTab, size: tuple[int, float]) -> None:
    per_second, seconds = size
    site.cluster.client.submit_many("add", [(n, 1) for n in range(200)])
    one = tab()
    page = one.page
    page.goto(f"{site.url}/tasks")
    boxes = page.locator("#rows input")
    for number in (1, 4, 7):
        boxes.nth(number).check()
    page.get_by_text("that match").click()
    page.locator("#rows a").nth(20).focus()
    page.evaluate("scrollTo(0, 300)")
    page.wait_for_timeout(300)
    before = page.evaluate(STATE)
    assert len(before["selected"]) == 3
    with Load(site.cluster, per_second) as load:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            assert page.evaluate(STATE) == before
            page.wait_for_timeout(200)
        expect(page.locator("#newer")).to_be_visible()
        assert page.evaluate(STATE) == before
    assert load.submitted >= per_second * seconds / 3
    page.locator("#newer").click()
    until(lambda: page.evaluate(STATE)["rows"] != before["rows"], what="the newer rows")
    assert page.evaluate(STATE)["selected"] == []
    assert one.complaints() == []


def test_a_page_that_nobody_touches_follows_by_itself(site: Site, tab: OpenTab) -> None:
    page = tab().page
    page.goto(f"{site.url}/tasks")
    task_id = site.submit("add", 1, 2)
    expect(page.locator(f"#t-{task_id}")).to_be_visible(timeout=20_000)
    expect(page.locator(f"#t-{task_id} .state")).to_have_text("succeeded", timeout=20_000)


def test_a_hidden_tab_lets_go_of_its_connection_and_takes_it_up_again(site: Site, tab: OpenTab) -> None:
    one = tab()
    page = one.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.url}/tasks")
    until(lambda: page.evaluate("1") and [url for url in asked if "/live?" in url], what="the stream")
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    page.evaluate(hide % "true" + "document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(1500)
    task_id = site.submit("add", 3, 4)
    page.wait_for_timeout(800)
    assert page.locator(f"#t-{task_id}").count() == 0
    page.evaluate(hide % "false" + "document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator(f"#t-{task_id}")).to_be_visible(timeout=20_000)
    assert len([url for url in asked if "/live?" in url]) == 2


def test_eight_tabs_at_once_do_not_hang(site: Site, tab: OpenTab) -> None:
    """A browser gives six connections to a host. A hidden tab lets go of its own after a second."""
    first = tab().page
    pages = [first] + [first.context.new_page() for _ in range(7)]
    for number, page in enumerate(pages):
        page.goto(f"{site.url}/tasks", timeout=10_000)
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        if number == 4:
            page.wait_for_timeout(1200)
    pages[-1].goto(f"{site.url}/queues", timeout=10_000)


def test_after_a_restart_the_page_is_live_again_by_itself(
    tmp_path_factory: pytest.TempPathFactory, tab: OpenTab
) -> None:
    with running_site(tmp_path_factory.mktemp("restarted"), "--processes", "0") as site:
        port = site.url.rpartition(":")[2]
        page = tab().page
        page.goto(f"{site.url}/tasks")
        page.wait_for_timeout(500)
        site.program.kill()
        expect(page.locator("#away")).to_be_visible(timeout=10_000)
        site.cluster.start("--processes", "0", FASTWORKER_DASHBOARD="true", FASTWORKER_DASHBOARD_PORT=port)
        task_id = site.cluster.client.submit("add", [1, 2])
        expect(page.locator(f"#t-{task_id}")).to_be_visible(timeout=20_000)
        expect(page.locator("#away")).to_be_hidden()
