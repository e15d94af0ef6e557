"""Who gets in, who may do what, and what a stranger's page can't do."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette

from fastworker_dashboard import dashboard
from fastworker_dashboard.access import Access, User
from tests.dashboard.site import Site, dashboard_url, running_site
from tests.support.cluster import Cluster

PASSWORDS = {"viewer": "look", "operator": "act", "admin": "all"}
NEEDS = {
    "viewer": [
        ("GET", path)
        for path in (
            "/", "/tasks", "/failed", "/queues", "/workers", "/types", "/audit", "/about", "/live", "/metrics",
            "/api/v1/tasks", "/api/v1/stats", "/api/v1/activity", "/api/v1/audit", "/api/v1/bulk", "/api/v1/events",
            "/api/status", "/api/tasks",
        )
    ],
    "operator": [
        ("POST", path)
        for path in (
            "/tasks/x/retry", "/tasks/x/cancel", "/actions/tasks", "/pause", "/resume", "/drain", "/schedules",
            "/tasks/x/priority", "/jobs/x/stop",
            "/api/v1/tasks/x/retry", "/api/v1/tasks/x/cancel", "/api/v1/bulk", "/api/v1/bulk/x/stop",
            "/api/v1/queues/x/pause", "/api/v1/queues/x/resume", "/api/v1/workers/x/drain",
            "/api/v1/tasks/x/priority/low",
        )
    ],
    "admin": [("POST", path) for path in ("/submit", "/tasks/x/again", "/api/v1/tasks")],
}  # fmt: skip
ROUTES = [(role, method, path) for role, routes in NEEDS.items() for method, path in routes]
ORDER = ("viewer", "operator", "admin")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    said = {
        f"FASTWORKER_DASHBOARD_{role.upper()}_PASSWORD": word for role, word in PASSWORDS.items() if role != "admin"
    }
    with running_site(tmp_path_factory.mktemp("locked"), FASTWORKER_DASHBOARD_PASSWORD="all", **said) as site:
        yield site


@pytest.mark.parametrize(("role", "method", "path"), ROUTES)
def test_every_route_refuses_who_is_not_let_in_and_who_may_not(locked: Site, role: str, method: str, path: str) -> None:
    for word, least in (("none-given", -1), ("wrong", -1), *((PASSWORDS[who], ORDER.index(who)) for who in ORDER)):
        if least >= ORDER.index(role):
            continue
        body = (
            {"json": {"name": "add", "action": "retry", "q": ""}} if "/api/" in path else {"data": {"action": "retry"}}
        )
        response = locked.http.request(
            method,
            path,
            headers={"authorization": f"Bearer {word}"},
            **(body if method == "POST" else {}),  # type: ignore[arg-type]
        )
        assert response.status_code == (401 if least < 0 else 403), (word, response.text)


def test_the_list_above_holds_every_route(locked: Site) -> None:
    schema = locked.http.get("/api/v1/openapi.json").json()
    tried = {path.replace("/x", "/{}").replace("/low", "/{}") for routes in NEEDS.values() for _, path in routes}
    post = {p for p, operations in schema["paths"].items() if "post" in operations}
    assert {"/".join("{}" if part.startswith("{") else part for part in path.split("/")) for path in post} <= tried


def test_a_viewer_sees_no_buttons_and_an_operator_can_not_delete(locked: Site) -> None:
    def page(word: str, path: str) -> str:
        return locked.http.get(path, headers={"authorization": f"Bearer {word}", "accept": "text/html"}).text

    locked.http.post("/api/v1/tasks", json={"name": "add", "args": [1, 2]}, headers={"authorization": "Bearer all"})
    assert "Retry" not in page("look", "/tasks")
    assert "Delete" not in page("act", "/tasks")
    assert "Delete" in page("all", "/tasks")
    refused = locked.http.post(
        "/api/v1/bulk", json={"action": "delete", "q": ""}, headers={"authorization": "Bearer act"}
    )
    assert refused.status_code == 403


def test_somebody_logs_in_and_out(locked: Site) -> None:
    with httpx.Client(base_url=locked.url, headers={"accept": "text/html", "sec-fetch-site": "same-origin"}) as browser:
        assert browser.get("/").headers["location"] == "/login"
        assert browser.post("/login", data={"password": "wrong"}).status_code == 401
        came = browser.post("/login", data={"password": "act"})
        assert came.status_code == 303
        cookie = came.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert browser.get("/").status_code == 200
        kept = dict(browser.cookies)
        browser.post("/logout")
        assert browser.get("/").status_code == 303
        browser.cookies.update(kept)
        assert browser.get("/").status_code == 303, "the session has ended on the server, too"


async def test_a_password_opens_the_best_role_that_it_has() -> None:
    access = Access({"viewer": "a", "admin": "b"})
    assert [await access.role_of(word) for word in ("a", "b", "c", "")] == ["viewer", "admin", None, None]
    assert User("operator", "o").may("viewer")
    assert not User("operator", "o").may("admin")
    assert access.user_of("made up") is None
    assert Access({}).user_of(None) == User("admin", "dashboard")


@pytest.mark.parametrize("words", [("start",), ("dashboard",)])
def test_off_loopback_it_refuses_to_start_without_a_password(cluster: Cluster, words: tuple[str, ...]) -> None:
    said = {"FASTWORKER_DASHBOARD_HOST": "0.0.0.0", "FASTWORKER_DASHBOARD": "true"}
    done = cluster.run(*words, timeout=60, **said)
    assert done.code == 2
    assert "FASTWORKER_DASHBOARD_PASSWORD" in done.err


# ---- hosts and origins -------------------------------------------------------------------------------------------


def ask(site: Site, method: str, path: str, **headers: str) -> int:
    with httpx.Client(base_url=site.url) as client:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.request(method, path, headers=sent).status_code


@pytest.mark.parametrize("path", ["/", "/tasks", "/live", "/api/v1/tasks", "/api/v1/events", "/metrics", "/healthz",
                                  "/static/dashboard.css", "/login", "/nothing"])  # fmt: skip
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "[::2]", "",
                                  "evil@127.0.0.1", "127.0.0.1:80:80", "0.0.0.0", "LOCALHOST.", "127.1"])  # fmt: skip
def test_only_our_own_names_are_answered(site: Site, path: str, host: str) -> None:
    assert ask(site, "GET", path, host=host) in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1234", "LocalHost", "[::1]:8080"])
def test_loopback_by_any_name_is_ours(site: Site, host: str) -> None:
    assert ask(site, "GET", "/healthz", host=host) == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "same-origin", "origin": "http://evil.example"},
        {"sec_fetch_site": "cross-site", "authorization": "Bearer -"},
    ],
)
def test_what_changes_something_must_come_from_our_own_pages(site: Site, method: str, headers: dict[str, str]) -> None:
    assert ask(site, method, "/pause", **headers) == 403


def test_a_link_from_elsewhere_opens_a_page_but_a_script_from_elsewhere_reads_nothing(site: Site) -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert ask(site, "GET", "/tasks", **link) == 200
    assert ask(site, "POST", "/pause", **link) == 403
    assert ask(site, "GET", "/tasks", sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert ask(site, "GET", "/tasks", **{**link, "sec_fetch_dest": "iframe"}) == 403


# ---- mounted -----------------------------------------------------------------------------------------------------


async def test_it_can_be_mounted_in_another_application(site: Site) -> None:
    app = Starlette()
    app.mount("/deep/fastworker", dashboard(site.cluster.url, hosts=["app.example"]))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app.example") as client:
        page = await client.get("/deep/fastworker/tasks", headers={"accept": "text/html"})
        assert page.status_code == 200
        assert 'href="/deep/fastworker/static/dashboard.css' in page.text
        assert 'href="/tasks' not in page.text
        assert (await client.get("/deep/fastworker/static/dashboard.css")).status_code == 200
        assert (await client.get("/deep/fastworker/api/v1/stats")).json()["workers"] == 1
        paused = await client.post("/deep/fastworker/pause", data={"queue": "q"}, headers={"authorization": "Bearer -"})
        assert paused.headers["location"] == "/deep/fastworker/queues?said=paused"
        await client.post("/deep/fastworker/resume", data={"queue": "q"}, headers={"authorization": "Bearer -"})


async def test_without_a_control_plane_it_says_so(site: Site) -> None:
    transport = httpx.ASGITransport(dashboard("ipc:///tmp/there-is-nothing-here"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/api/v1/stats")
        assert response.status_code == 503
        assert "no control plane" in response.json()["error"]
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503


def test_it_runs_alone_and_takes_the_next_port_if_its_own_is_taken(site: Site) -> None:
    port = site.url.rpartition(":")[2]
    program = site.cluster.program("alone", "dashboard", "--control-plane", site.cluster.url, "--port", port)
    url = dashboard_url(program)
    assert int(url.rpartition(":")[2]) > int(port)
    assert httpx.get(f"{url}/api/v1/stats").json()["workers"] == 1
    assert program.terminate() in (0, -15)


def test_the_dashboard_ends_with_its_control_plane_however_that_ends(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_site(tmp_path_factory.mktemp("killed")) as site:
        children = site.program.children()
        assert any("dashboard" in child.cmdline() for child in children)
        site.program.kill()
        for child in children:
            child.wait(10)
