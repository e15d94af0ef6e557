"""`make shots`: pictures of the dashboard of a shop that has been open for two minutes, for the docs."""

from __future__ import annotations

import math
import random
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, sync_playwright

from fastworker import group
from fastworker.portal import wait_for
from tests.browser.conftest import CHROMIUM
from tests.dashboard.site import Site, running_site
from tests.support.waiting import until

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
SHOP = Path(__file__).with_name("shop.py")
OPEN_FOR = 125.0
WORKERS = ("worker-1", "worker-2")


def trade(site: Site) -> None:
    """Two minutes in which more is bought at times, and less at others."""
    chance = random.Random(4)
    began, number = time.monotonic(), 4000
    while (passed := time.monotonic() - began) < OPEN_FOR:
        for _ in range(round(2 + 2 * math.sin(passed / 9) + chance.random())):
            number += 1
            buy(site, number, chance)
        time.sleep(0.1)


def buy(site: Site, number: int, chance: random.Random) -> None:
    """What one order sets off."""
    customer = f"{chance.choice(('ada', 'grace', 'edsger', 'barbara', 'donald'))}@example.org"
    site.submit("charge_card", f"A-{number}", round(chance.uniform(5, 200), 2), "4111 1111", tags=["checkout"])
    site.submit("send_email", customer, "receipt")
    if number % 3 == 0:
        site.submit("index_product", f"sku-{number % 97}")
    if number % 7 == 0:
        site.submit("resize_image", f"uploads/{number}.jpg", 320)


def scene(site: Site) -> dict[str, str]:
    """What stands on the pages beside the trade: a workflow, a report that is written."""
    from tests.browser import shop  # here: the workers are forked from a process that imports this file

    sizes = group([shop.resize_image.s("uploads/cat.jpg", width) for width in (320, 640, 1280)])
    gallery = str(wait_for(sizes.then(shop.publish_gallery.s()).submit()))
    running = site.submit("build_report", "2026-10", 600)
    site.submit("import_catalogue", "spring", queue="search")
    site.submit("send_email", "alan@example.org", "reminder", delay=3600)
    until(lambda: site.json(f"/api/v1/tasks/{gallery}")["state"] == "succeeded", 30, "the gallery")
    return {"workflow": gallery, "running": running}


def paths(site: Site, ids: dict[str, str]) -> dict[str, str]:
    """The path of each page."""
    [failed] = site.json("/api/v1/tasks", q="state:failed name:charge_card", limit=1)["tasks"]
    return {
        "overview": "/",
        "tasks": "/tasks",
        "tasks-by-name": "/tasks?group=name",
        "task": f"/tasks/{failed['id']}",
        "task-running": f"/tasks/{ids['running']}",
        "workflow": f"/tasks/{ids['workflow']}",
        "failed": "/failed",
        "queues": "/queues",
        "workers": "/workers",
        "worker": f"/workers/{quote(WORKERS[0])}",
        "types": "/types",
        "type": "/types/resize_image",
        "schedules": "/schedules",
        "audit": "/audit",
        "about": "/about",
    }


def take(browser: Browser, site: Site, paths: dict[str, str]) -> None:
    """Every page in both themes."""
    FOLDER.mkdir(exist_ok=True)
    for scheme in ("light", "dark"):
        context = browser.new_context(
            viewport={"width": 1280, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
        )
        page = context.new_page()
        for name, path in paths.items():
            page.goto(site.url + path)
            page.screenshot(path=FOLDER / f"{name}-{scheme}.png")
        context.close()


def main() -> None:
    """Take all pictures."""
    folder = Path(tempfile.mkdtemp(prefix="shop-"))
    try:
        with running_site(folder, "--processes", "0") as site, sync_playwright() as playwright:
            shutil.copy(SHOP, folder / "tasks.py")
            for name in WORKERS:
                site.cluster.worker("--concurrency", "8", name=name)
            ids = scene(site)
            trade(site)
            site.http.post("/api/v1/queues/search/pause")
            site.http.post("/api/v1/bulk", json={"action": "retry", "q": "state:failed name:index_product"})
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            take(browser, site, paths(site, ids))
            browser.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
