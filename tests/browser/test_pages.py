"""Every page in a real browser: both themes, three widths, accessible, strict, small, and with nothing in it."""

from __future__ import annotations

import hashlib
import json
import statistics
from pathlib import Path

import pytest

from tests.browser import scene
from tests.browser.conftest import OpenTab
from tests.dashboard.site import Site, running_site
from tests.support.waiting import until

AXE = Path(__file__).with_name("vendor") / "axe.min.js"
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


@pytest.fixture(scope="module")
def pages(site: Site) -> dict[str, str]:
    return scene.paths(scene.play(site))


def test_axe_is_the_one_that_was_published() -> None:
    digest = hashlib.sha256(AXE.read_bytes()).hexdigest()
    assert digest == "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_strict_and_fits(site: Site, pages: dict[str, str], tab: OpenTab, scheme: str) -> None:
    """axe-core finds nothing, the policy reports nothing, nothing sticks out at any width."""
    one = tab(scheme=scheme)
    page = one.page
    axe = AXE.read_text()
    for name, path in pages.items():
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(site.url + path)
        page.evaluate(axe)
        found = page.evaluate(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
            ".then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.target + ' ' + n.failureSummary)]))"
        )
        assert found == [], f"{name}: {json.dumps(found, indent=2)}"
        for width in (1280, 768, 320):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} at {width}"
        assert one.complaints() == [], name


def test_a_page_loads_little_and_from_us_only_and_shows_soon(
    site: Site, pages: dict[str, str], tab: OpenTab, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tab()
    asked: list[str] = []
    one.page.on("request", lambda request: asked.append(request.url))
    one.page.goto(site.url + "/")
    one.page.wait_for_timeout(300)
    assert len(asked) <= 6, asked
    assert all(url.startswith(site.url + "/") for url in asked)
    count = len(asked)
    paints = []
    for path in ("/", "/tasks", "/failed", "/queues", "/workers"):
        one.page.goto(site.url + path)
        paints.append(until(lambda: one.page.evaluate(PAINT), what="the first paint"))
    paint = statistics.median(paints)
    with capsys.disabled():
        print(f"\n{count} requests, first contentful paint after {paint:.0f} ms ({max(paints):.0f} at most)")
    assert paint <= (300 if request.config.getoption("--full") else 3000)


def test_an_empty_dashboard_says_what_to_type(tmp_path: Path, tab: OpenTab) -> None:
    with running_site(tmp_path, "--processes", "0") as empty:
        page = tab().page
        for path, words in (
            ("/", "fastworker worker start"),
            ("/tasks", "fastworker submit"),
            ("/failed", "Nothing has failed"),
            ("/queues", "fastworker submit"),
            ("/workers", "fastworker worker start"),
            ("/types", "@task"),
            ("/audit", "Nobody has done anything"),
        ):
            page.goto(empty.url + path)
            assert words in page.inner_text("main"), path


def test_without_javascript_one_can_read_and_act(site: Site, pages: dict[str, str], tab: OpenTab) -> None:
    page = tab(javascript=False).page
    for name, path in pages.items():
        page.goto(site.url + path)
        assert page.locator("h1").count() == 1, name
    page.goto(site.url + pages["task"])
    page.get_by_role("button", name="Retry").click()
    assert "Queued again." in page.inner_text("body")
    page.fill("#q", "tag:billing")
    page.keyboard.press("Enter")
    page.wait_for_url("**/tasks?q=*")
    assert page.locator("#rows tr").count() == 4
