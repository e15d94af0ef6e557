"""The JSON API, the probes, the metrics, the paths of 0.3.0: on a real control plane."""

from __future__ import annotations

import json
import re
import threading
from itertools import chain
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastworker.errors import ConfigurationError
from fastworker.settings import load_settings
from fastworker_dashboard import dashboard
from tests.dashboard.site import Site
from tests.docs.pages import ROOT
from tests.support.waiting import until

PAGES = ("/", "/tasks", "/failed", "/queues", "/workers", "/types", "/types/add", "/audit", "/about")


def test_a_task_is_submitted_found_and_followed_to_its_result(site: Site) -> None:
    task_id = site.submit("add", 2, 3, tags=["api"], priority="high")
    until(lambda: site.json(f"/api/v1/tasks/{task_id}")["state"] == "succeeded", what="the end")
    info = site.json(f"/api/v1/tasks/{task_id}")
    assert (info["result"], info["tags"], info["priority"]) == ("5", ["api"], "high")
    found = site.json("/api/v1/tasks", q="tag:api")
    assert [task["id"] for task in found["tasks"]] == [task_id]
    assert site.json(f"/api/v1/tasks/{task_id}/why")["state"] == "succeeded"


def test_what_is_wrong_is_told_in_one_sentence(site: Site) -> None:
    unknown = "01900000-0000-7000-8000-000000000000"
    for method, path, body, status in (
        ("GET", f"/api/v1/tasks/{unknown}", None, 404),
        ("GET", "/api/v1/tasks?q=colour:blue", None, 400),
        ("POST", f"/api/v1/tasks/{unknown}/retry", None, 404),
        ("POST", "/api/v1/tasks", {"name": "nobody_knows", "strict": True}, 422),
        ("POST", "/api/v1/tasks", {"name": "add", "wrong": 1}, 422),
        ("POST", "/api/v1/tasks", {"name": ""}, 422),
        ("POST", "/api/v1/bulk", {"action": "reprioritise", "q": ""}, 422),
        ("POST", "/api/v1/bulk", {"action": "retry", "q": "", "priority": "low"}, 422),
        ("GET", "/api/v1/nothing", None, 404),
    ):
        response = site.http.request(method, path, json=body)
        assert response.status_code == status, (path, response.text)
        assert response.headers["content-type"] == "application/json"
    said = site.http.get("/api/v1/tasks?q=colour:blue").json()["error"]
    assert "there is no colour:" in said


def test_actions_go_to_the_audit(site: Site) -> None:
    site.http.post("/api/v1/queues/api-held/pause")
    task_id = site.submit("add", 1, 1, queue="api-held")
    assert site.http.post(f"/api/v1/tasks/{task_id}/cancel").json() == {"outcome": "was_queued"}
    assert site.http.post(f"/api/v1/tasks/{task_id}/retry").json() == {"outcome": "queued"}
    site.http.post("/api/v1/queues/api-held/resume")
    until(lambda: site.json(f"/api/v1/tasks/{task_id}")["state"] == "succeeded", what="the end")
    rows = [row for row in site.json("/api/v1/audit", limit=10) if row["action"] != "note"][:4]
    assert [row["action"] for row in rows] == ["resume", "retry", "cancel", "pause"]
    assert {row["who"] for row in rows} == {"dashboard"}


def test_what_is_submitted_through_the_api_is_in_the_audit_in_few_rows(site: Site) -> None:
    def noted() -> list[str]:
        return [row["target"] for row in site.json("/api/v1/audit", limit=50) if row["action"] == "note"]

    def sum_of_all() -> int:
        several = [re.search(r"submitted (\d+) tasks", text) for text in noted()]
        return sum(int(found[1]) if found else 1 for found in several)

    until(lambda: not site.count("state:queued,running") and sum_of_all() == site.json("/api/v1/facets")["total"])
    rows, tasks = len(noted()), sum_of_all()
    for number in range(40):
        site.submit("add" if number % 4 else "echo", 1, *([2] if number % 4 else []))
    until(lambda: sum_of_all() == tasks + 40, what="the rows of the audit")
    assert len(noted()) - rows < 20
    assert "add" in noted()[0]


async def test_a_task_leads_to_the_trace_of_the_request_that_submitted_it(site: Site) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for sent, found in ((f"00-{trace}-00f067aa0ba902b7-01", trace), ("00-javascript:alert(1)-x-01", None)):
        new = site.http.post("/api/v1/tasks", json={"name": "echo"}, headers={"traceparent": sent}).json()["id"]
        assert site.json(f"/api/v1/tasks/{new}")["trace_id"] == found
        app = dashboard(site.cluster.url, trace_url="https://traces.example/of/{trace_id}")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            html = (await client.get(f"/tasks/{new}", headers={"accept": "text/html"})).text
        assert (f'href="https://traces.example/of/{trace}"' in html) is (found is not None)
        assert "javascript" not in html


def test_where_traces_are_shown_must_be_an_address_with_a_place_for_the_id() -> None:
    for wrong in ("https://traces.example/", "javascript:alert('{trace_id}')"):
        with pytest.raises(ConfigurationError, match="dashboard_trace_url"):
            load_settings(dashboard_trace_url=wrong)


def test_a_bulk_action_is_started_watched_and_ends(site: Site) -> None:
    for number in range(5):
        site.submit("fail", f"bulk {number}", tags=["bulk"])
    until(lambda: site.count("state:failed tag:bulk") == 5, what="the failures")
    job = site.http.post("/api/v1/bulk", json={"action": "delete", "q": "tag:bulk"})
    assert job.status_code == 202
    until(lambda: site.count("tag:bulk") == 0, what="the deletion")
    assert site.json("/api/v1/bulk")[0]["done"] == 5


def test_every_attempt_of_a_task_is_shown_and_lists_leave_them_out(site: Site) -> None:
    task_id = site.submit("flaky", 3, tags=["attempts"])
    until(lambda: site.json(f"/api/v1/tasks/{task_id}")["state"] == "succeeded", what="the third attempt")
    html = site.http.get(f"/tasks/{task_id}", headers={"accept": "text/html"}).text
    assert re.findall(r'<tr id="at-(\d)">', html) == ["1", "2", "3"]
    assert html.count('<span class="error">RuntimeError: not yet') == 2
    assert html.count("Traceback of attempt") == 2
    assert [len(task["history"]) for task in site.json("/api/v1/tasks", q="tag:attempts")["tasks"]] == [0]


def test_the_limits_of_a_lane_are_beside_it(site: Site) -> None:
    site.cluster.client.set_limits("echo", rate_limit="1/h", max_concurrency=7)
    for number in range(2):
        site.submit("echo", number)
    until(lambda: "1/h, 7 at once" in site.http.get("/queues").text, what="the lane with its limit")
    assert "At most 1/h, 7 at once, set at run time." in site.http.get("/types/echo").text
    site.cluster.client.reset_limits("echo")


def test_events_tell_the_moves_of_a_task(site: Site) -> None:
    heard: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        with site.http.stream("GET", "/api/v1/events", params={"name": "echo"}) as response:
            for line in response.iter_lines():
                ready.set()
                if line.startswith("data:"):
                    heard.append(json.loads(line[5:])["state"])
                if heard and heard[-1] == "succeeded":
                    return

    thread = threading.Thread(target=listen)
    thread.start()
    ready.wait(10)

    def submitted_and_heard() -> bool:  # it may be listening only a moment after its first word
        site.submit("echo", "x")
        thread.join(0.5)
        return not thread.is_alive()

    until(submitted_and_heard, what="the events")
    assert heard[-3:] == ["queued", "running", "succeeded"]


def test_the_schema_names_every_route(site: Site) -> None:
    schema = site.json("/api/v1/openapi.json")
    assert {"/api/v1/tasks", "/api/v1/bulk", "/api/v1/events", "/metrics", "/healthz", "/api/status"} <= set(
        schema["paths"]
    )
    assert all(operation.get("description") for path in schema["paths"].values() for operation in path.values())


def test_tasks_are_counted_by_name_and_state(site: Site) -> None:
    ids = [site.submit("fail", n, tags=["by-name"]) for n in range(3)] + [site.submit("add", 1, 1, tags=["by-name"])]
    until(lambda: site.count("tag:by-name state:failed,succeeded") == len(ids), what="the ends")
    found = site.json("/api/v1/facets", q="tag:by-name")
    assert found["by_name"] == {"fail": {"failed": 3}, "add": {"succeeded": 1}}
    html = site.http.get("/tasks?q=tag:by-name+state:failed&group=name").text
    assert "3 match, of 1 name" in re.sub("<[^>]+>", "", html)
    assert f'href="/tasks?q={quote("tag:by-name state:failed name:fail")}"' in html


def test_a_worker_has_a_page_with_its_memory_its_rate_and_what_it_ran(site: Site) -> None:
    task_id = site.submit("add", 1, 1)
    until(lambda: site.json(f"/api/v1/tasks/{task_id}")["state"] == "succeeded", what="the end")
    worker = until(lambda: [one for one in site.json("/api/v1/workers") if one["memory"]], what="its memory")[0]
    assert worker["memory"] == pytest.approx(psutil.Process(worker["pid"]).memory_info().rss, rel=0.2)
    assert worker["per_second"] > 0
    page = f"/workers/{quote(worker['name'], safe='')}"
    for path in ("/workers", page):
        assert re.search(r"\d+ MB", site.http.get(path).text), path
    assert f'/tasks/{task_id}"' in site.http.get(page).text
    assert page in site.http.get(f"/tasks/{task_id}").text
    gone = site.http.get("/workers/nobody")
    assert (gone.status_code, "no worker nobody" in gone.text) == (404, True)


def test_prometheus_can_read_the_metrics(site: Site) -> None:
    site.submit("add", 1, 1)
    until(lambda: site.count("state:queued,running") == 0, what="the end")
    text = site.http.get("/metrics").text
    found = {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}
    assert found["fastworker_workers"].value == 1
    assert found["fastworker_slots"].value == 8
    assert 'fastworker_tasks_ended_total{name="add",state="succeeded"}' in text
    states = site.json("/api/v1/stats")["states"]
    assert f'fastworker_tasks{{state="succeeded"}} {float(states["succeeded"])}' in text


def test_every_metric_that_the_docs_and_the_grafana_dashboard_name_exists(site: Site) -> None:
    site.submit("add", 1, 1)
    until(lambda: 'quantile="0.95"' in site.http.get("/metrics").text, what="the end of a task")
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(site.http.get("/metrics").text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels[name] = {label for sample in family.samples for label in sample.labels}
    page = (ROOT / "docs" / "prometheus.md").read_text()
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == set(labels)
    assert set(re.findall(r"fastworker_\w+", page)) <= {*labels, "fastworker_tasks_ended"}, "what grep looks for"

    grafana = json.loads((ROOT / "docs" / "grafana" / "fastworker.json").read_text())
    queries = [target for panel in grafana["panels"] for target in panel["targets"]]
    assert len(queries) > 10
    for query in queries:
        names = set(re.findall(r"fastworker_\w+", query["expr"]))
        assert names, query
        for name in names:
            used = re.findall(r"by \((\w+)\)|{{(\w+)}}|(\w+)=", query["expr"] + query["legendFormat"])
            assert {*filter(None, chain(*used))} <= {"job", *labels[name]}, query
    for variable in re.findall(r"fastworker_\w+", json.dumps(grafana["templating"])):
        assert variable in labels


@pytest.mark.parametrize("path", ["/api/status", "/api/workers", "/api/queues", "/api/tasks"])
def test_the_paths_of_0_3_0_answer(site: Site, path: str) -> None:
    assert site.json(path)


def test_the_probes_answer(site: Site) -> None:
    assert site.json("/healthz") == {"status": "ok"}
    assert site.json("/readyz") == {"status": "ok"}


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_small_strict_and_not_kept(site: Site, path: str) -> None:
    response = site.http.get(path, headers={"accept": "text/html"})
    assert response.status_code == 200
    assert len(response.content) < 512_000
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["cache-control"] == "no-store"


def test_a_secret_does_not_leave_the_control_plane(site: Site) -> None:
    task_id = site.submit("echo", {"password": "hunter2"}, tags=["secret"])
    until(lambda: site.json(f"/api/v1/tasks/{task_id}")["state"] == "succeeded", what="the end")
    for path in (f"/tasks/{task_id}", "/tasks?q=tag:secret", f"/api/v1/tasks/{task_id}", "/api/v1/tasks?q=tag:secret"):
        text = site.http.get(path).text
        assert "hunter2" not in text
        assert "•••" in text


def test_what_was_submitted_is_there_at_once(site: Site) -> None:
    for number in range(20):
        task_id = site.submit("add", number, 1)
        assert task_id in site.http.get("/tasks").text


def test_a_live_stream_tells_what_has_changed(site: Site) -> None:
    with httpx.Client(base_url=site.url, timeout=20) as other, other.stream("GET", "/live?page=/tasks") as response:
        lines = response.iter_lines()
        assert response.headers["content-type"].startswith("text/event-stream")
        until(lambda: next(lines).startswith("event: page"), what="the page")
        task_id = site.submit("add", 1, 2)
        until(lambda: task_id in next(lines), what="the new task in the page")


def test_a_stream_of_a_page_that_does_not_exist_is_refused(site: Site) -> None:
    assert site.http.get("/live?page=/nothing").status_code == 404


def test_many_streams_of_one_page_get_the_same(site: Site) -> None:
    heard: list[str] = []

    def listen() -> None:
        with httpx.Client(base_url=site.url, timeout=20) as other, other.stream("GET", "/live?page=/about") as response:
            for line in response.iter_lines():
                if "<h1>About</h1>" in line:
                    heard.append(line)
                    return

    threads = [threading.Thread(target=listen) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(heard) == 10


def form(site: Site, path: str, **fields: Any) -> httpx.Response:
    return site.http.post(path, data=fields, headers={"accept": "text/html"})


def test_forms_work_as_a_browser_without_scripts_sends_them(site: Site) -> None:
    task_id = site.submit("fail", "for the form", tags=["form"])
    until(lambda: site.count("state:failed tag:form") == 1, what="the failure")
    assert form(site, f"/tasks/{task_id}/retry").headers["location"] == f"/tasks/{task_id}?said=retried"
    second = {"attempt": 2, "state": "failed"}
    until(lambda: site.json(f"/api/v1/tasks/{task_id}").items() >= second.items(), what="the second failure")
    asked = form(site, "/actions/tasks", action="delete", q="tag:form", all="true")
    assert asked.status_code == 200
    assert "Delete 1 tasks?" in asked.text
    assert site.count("tag:form") == 1
    done = form(site, "/actions/tasks", action="delete", q="tag:form", all="true", confirmed="true")
    assert done.status_code == 303
    until(lambda: site.count("tag:form") == 0, what="the deletion")
    new = form(site, "/submit", name="add", **{"arg-a": "20", "arg-b": "22"}).headers["location"]
    until(lambda: "42" in site.http.get(new).text, what="the result")
    assert "is not integer" in form(site, "/submit", name="add", **{"arg-a": "x", "arg-b": "1"}).text
    assert "Select at least one" in form(site, "/actions/tasks", action="retry").text
