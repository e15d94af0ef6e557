"""The dashboard mounted in an application, under the application's own authentication."""

from __future__ import annotations

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.testclient import TestClient

from fastworker import ConfigurationError, task
from fastworker.integrations.fastapi import FastWorkerMiddleware
from fastworker_dashboard import User, dashboard
from tests.support.cluster import Cluster

ROLES = {"vera": User("viewer", "vera"), "otto": User("operator", "otto")}
PAGE = {"accept": "text/html"}
FROM_A_PAGE = {"sec-fetch-site": "same-origin"}


async def who(request: Request) -> User | None:
    """The application's own idea of who asks."""
    name = request.headers.get("x-user", "")
    if name == "banned":
        raise HTTPException(303, headers={"Location": "/log-in"})
    return ROLES.get(name)


@pytest.fixture
def shop(running: Cluster) -> FastAPI:
    """An application beside a control plane, with the dashboard at a path of its choice."""
    app = FastAPI()
    app.add_middleware(FastWorkerMiddleware, url=running.url)
    app.mount("/admin/tasks", dashboard(authenticate=who, hosts=["testserver"]))
    return app


def test_the_application_says_who_may_come_in_and_do_what(running: Cluster, shop: FastAPI) -> None:
    with TestClient(shop, follow_redirects=False) as http:
        refused = http.get("/admin/tasks/", headers=PAGE)
        assert (refused.status_code, "log in to the application" in refused.text) == (401, True)
        sent_away = http.get("/admin/tasks/", headers={**PAGE, "x-user": "banned"})
        assert (sent_away.status_code, sent_away.headers["location"]) == (303, "/log-in")
        for name, status in (("vera", 403), ("otto", 303)):
            assert http.get("/admin/tasks/queues", headers={**PAGE, "x-user": name}).status_code == 200
            said = {"x-user": name, **FROM_A_PAGE}
            assert http.post("/admin/tasks/pause", data={"queue": "mail"}, headers=said).status_code == status
        assert http.get("/admin/tasks/api/v1/stats", headers={"authorization": "Bearer -"}).status_code == 401
        audit = http.get("/admin/tasks/audit", headers={**PAGE, "x-user": "vera"}).text
        assert "otto" in audit, "the audit has the application's own names"
        assert "vera" not in audit
    running.client.resume(queue="mail")


def test_it_is_there_again_when_the_application_is_started_again(shop: FastAPI) -> None:
    for _ in range(2):
        with TestClient(shop) as http:
            stats = http.get("/admin/tasks/api/v1/stats", headers={"x-user": "vera"}).json()
            assert stats["workers"] == 1


@pytest.fixture
def alone(embedding: FastAPI) -> FastAPI:
    """It submits a task and tells the result."""

    @task(name="mounted_sum")
    async def mounted_sum(a: int, b: int) -> int:
        return a + b

    @embedding.get("/sum")
    async def sum_() -> int:
        return await (await mounted_sum.submit(2, 3)).result(timeout=10)

    return embedding


def test_it_shows_the_embedded_control_plane(alone: FastAPI) -> None:
    alone.mount("/fastworker", dashboard(hosts=["testserver"]))
    with TestClient(alone) as http:
        assert http.get("/sum").json() == 5
        assert "mounted_sum" in http.get("/fastworker/tasks", headers=PAGE).text


def test_a_dashboard_of_another_control_plane_takes_no_task_there(alone: FastAPI, running: Cluster) -> None:
    alone.mount("/fastworker", dashboard(running.url, hosts=["testserver"]))
    with TestClient(alone) as http:
        assert http.get("/fastworker/api/v1/stats").json()["pid"] == running.programs[0].pid
        assert http.get("/sum").json() == 5


def test_passwords_besides_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="either the dashboard asks for passwords"):
        dashboard(passwords={"admin": "secret"}, authenticate=who)
