"""What strangers try: markup in everything that a task can say, pages of other sites, names that lead to us."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser.conftest import OpenTab
from tests.dashboard.site import Site, running_site
from tests.support.cluster import free_port
from tests.support.waiting import until

BASES = json.loads(Path(__file__).with_name("payloads.json").read_text())
DISGUISES: tuple[Callable[[str], str], ...] = (
    str,
    str.upper,
    lambda text: text.replace("<", "<\t"),
    lambda text: text.replace(" ", "/"),
    lambda text: f"]]>{text}",
    lambda text: f"\\u003c{text}",
    quote,
    lambda text: f"{text}\x7f\n{text}",
)
PAYLOADS = [disguise(base) for base in BASES for disguise in DISGUISES]
LOOK = """() => [
  window.pwned === undefined,
  document.querySelectorAll('main script, main iframe, main img, main base, main meta, main style, ' +
    'main [onerror], main [onload], main [hx-get], main [data-hx-get]').length,
  location.origin,
  document.querySelector('h1').checkVisibility(),
]"""


@pytest.mark.timeout(240)
def test_two_hundred_payloads_are_inert_on_every_page(tmp_path_factory: pytest.TempPathFactory, tab: OpenTab) -> None:
    assert len(PAYLOADS) == 200
    with running_site(tmp_path_factory.mktemp("hostile")) as site:
        client = site.cluster.client
        site.cluster.worker("--url", site.cluster.url, name="<img src=x onerror=window.pwned=1>")
        failed = [client.submit("fail", [text], tags=[text], queue=text[:200]) for text in PAYLOADS]
        named = [client.submit(text[:200], [text], {text: text}) for text in PAYLOADS]
        until(lambda: site.count("state:failed") == len(failed), 60, "the failures")
        job = site.http.post("/api/v1/bulk", json={"action": "cancel", "q": f'"{BASES[0]}"'})
        assert job.status_code == 202
        one = tab()
        page = one.page
        paths = ["/", "/failed", "/queues", "/workers", "/types", "/audit", "/about"]
        paths += [f"/workers/{quote(worker['name'], safe='')}" for worker in site.json("/api/v1/workers")]
        paths += [f"/tasks/{task}" for task in (*failed[::8], *named[::8])]
        paths += [f"/types/{quote(text[:200], safe='')}" for text in PAYLOADS[::8]]
        paths += [f"/tasks?q={quote(text)}" for text in PAYLOADS[::8]]
        before = None
        for _ in range(20):
            found = site.json("/api/v1/tasks", limit=50, **({"before": before} if before else {}))
            paths.append(f"/tasks?before={before}" if before else "/tasks")
            before = found["next"]
            if before is None:
                break
        for path in paths:
            page.goto(site.url + path)
            assert page.evaluate(LOOK) == [True, 0, site.url, True], path
        page.goto(f"{site.url}/tasks")  # and what comes through the live stream
        newest = client.submit("fail", [PAYLOADS[0]], tags=[PAYLOADS[1]])
        page.wait_for_selector(f"#t-{newest}")
        assert page.evaluate("window.pwned") is None
        assert one.complaints() == []


# ---- pages of other sites ----------------------------------------------------------------------------------------


@contextmanager
def stranger() -> Iterator[int]:
    """A web server of somebody else; returns its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>stranger</title><body>hello")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


STRANGER = Path(__file__).with_name("stranger.js").read_text()


def untouched(site: Site) -> tuple[object, ...]:
    activity = site.json("/api/v1/activity")
    return (
        activity["paused_queues"],
        activity["version"],
        len(site.json("/api/v1/audit")),
        len(site.json("/api/v1/bulk")),
    )


def test_pages_of_other_sites_change_nothing_and_read_nothing(site: Site, tab: OpenTab) -> None:
    """Cross-site and same-site fetches of every method, preflights, streams, forms and frames: more than 60 in all."""
    port = site.url.rpartition(":")[2]
    before = untouched(site)
    count = 0
    with stranger() as strange:
        for origin, target in (
            (f"http://evil.example:{strange}", f"http://127.0.0.1:{port}"),
            (f"http://127.0.0.1:{strange}", f"http://127.0.0.1:{port}"),
            (f"http://localhost:{strange}", f"http://127.0.0.1:{port}"),
        ):
            page = tab().page
            page.goto(origin)
            page.evaluate(STRANGER)
            tried = page.evaluate("(base) => tryFetches(base)", target)
            assert all(length == 0 and how in ("refused", "opaque") for *_, how, length in tried), tried
            count += len(tried)
            for path, fields in (
                ("/pause", {"queue": "default"}),
                ("/submit", {"name": "add", "arg-a": "1", "arg-b": "2"}),
                ("/actions/tasks", {"action": "delete", "all": "true", "confirmed": "true", "q": ""}),
                ("/drain", {"worker": "x"}),
                ("/logout", {}),
            ):
                page.evaluate("([base, path, fields]) => tryForm(base, path, fields)", [target, path, fields])
                count += 1
            page.evaluate("(url) => tryFrame(url)", f"{target}/tasks")
            count += 1
            assert all("Tasks" not in (frame.title() or "") for frame in page.frames if frame is not page.main_frame)
    assert count >= 60
    assert untouched(site) == before


def test_a_name_that_leads_to_us_does_not_open_the_door(site: Site, tab: OpenTab) -> None:
    """DNS rebinding: the browser believes that it speaks with the stranger."""
    port = site.url.rpartition(":")[2]
    before = untouched(site)
    for host in ("evil.example", "localhost.example", "127.0.0.1.example", "a.b.c.example", "xn--lcalhost-e1a.example"):
        page = tab().page
        for path in ("/", "/tasks", "/api/v1/tasks", "/metrics", "/static/dashboard.css"):
            response = page.goto(f"http://{host}:{port}{path}")
            assert response is not None
            assert response.status == 403
            assert "not called by that name" in response.text()
        page.evaluate(STRANGER)
        tried = page.evaluate("(base) => tryFetches(base)", "")
        for path, method, mode, _, length in tried:
            assert length < 200, (path, method, mode)
    assert untouched(site) == before
