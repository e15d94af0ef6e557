"""Every action of the pages, as somebody does it, and by the keyboard alone."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from fastworker.portal import wait_for
from tests.browser.conftest import OpenTab
from tests.dashboard.site import Site
from tests.support.waiting import until


def failed(site: Site, count: int, tag: str) -> list[str]:
    ids = [site.submit("fail", f"{tag} {n}", tags=[tag]) for n in range(count)]
    until(lambda: site.count(f"state:failed tag:{tag}") == count, 30, "the failures")
    return ids


def attempts(site: Site, task_id: str) -> int:
    return int(site.json(f"/api/v1/tasks/{task_id}")["attempt"])


def message(page: Page, words: str) -> None:
    expect(page.locator(".banner.good")).to_contain_text(words)


def test_one_task_is_retried_and_submitted_again_with_other_arguments(site: Site, tab: OpenTab) -> None:
    [task_id] = failed(site, 1, "single")
    page = tab().page
    page.goto(f"{site.url}/tasks/{task_id}")
    page.get_by_role("button", name="Retry").click()
    message(page, "Queued again")
    until(lambda: attempts(site, task_id) == 2, what="the second attempt")
    page.get_by_text("Retry with other arguments").click()
    page.fill("#args", '["with other arguments"]')
    page.get_by_role("button", name="Retry with these").click()
    message(page, "Queued again")
    until(lambda: attempts(site, task_id) == 3, what="the third attempt")
    expect(page.locator("#arguments")).to_contain_text("with other arguments")


def test_a_queued_task_is_cancelled_and_a_running_one_is_asked(site: Site, tab: OpenTab) -> None:
    site.http.post("/api/v1/queues/cancel-me/pause")
    queued = site.submit("add", 1, 2, queue="cancel-me")
    page = tab().page
    page.goto(f"{site.url}/tasks/{queued}")
    expect(page.locator("#why")).to_contain_text("paused")
    page.get_by_label("Priority").select_option("critical")
    page.get_by_role("button", name="Set priority").click()
    message(page, "new priority")
    expect(page.locator("#facts")).to_contain_text("critical")
    page.get_by_role("button", name="Cancel").click()
    message(page, "Cancelled")
    expect(page.locator(".head .state")).to_have_text("cancelled")
    site.http.post("/api/v1/queues/cancel-me/resume")


def test_a_selection_is_retried_and_nothing_else(site: Site, tab: OpenTab) -> None:
    ids = failed(site, 4, "some")
    page = tab().page
    page.goto(f"{site.url}/tasks?q=tag:some")
    for task_id in ids[:2]:
        page.check(f"#t-{task_id} input")
    expect(page.locator("#selected")).to_have_text("2 selected")
    page.locator("#bulk").get_by_role("button", name="Retry", exact=True).click()
    message(page, "Started in the background")
    until(lambda: [attempts(site, task_id) for task_id in ids] == [2, 2, 1, 1], what="the second attempts")


def test_a_selection_gets_another_priority(site: Site, tab: OpenTab) -> None:
    site.http.post("/api/v1/queues/urgent/pause")
    ids = [site.submit("add", n, 1, queue="urgent") for n in range(3)]
    page = tab().page
    page.goto(f"{site.url}/tasks?q=queue:urgent")
    for task_id in ids[:2]:
        page.check(f"#t-{task_id} input")
    page.locator("#bulk").get_by_label("New priority").first.select_option("critical")
    page.locator("#bulk").get_by_role("button", name="Set priority", exact=True).click()
    message(page, "Started in the background")
    until(lambda: site.count("queue:urgent priority:critical") == 2, what="the new priority of two")
    page.goto(f"{site.url}/tasks?q=queue:urgent")
    page.get_by_text("that match").click()
    page.locator("#priority-all").select_option("low")
    page.get_by_role("button", name="Set priority of all…").click()
    expect(page.locator("h1")).to_have_text("Set the priority of 3 tasks to low?")
    page.get_by_role("button", name=re.compile("^Set the priority of 3")).click()
    until(lambda: site.count("queue:urgent priority:low") == 3, what="the new priority of all")
    site.http.post("/api/v1/queues/urgent/resume")


def test_deleting_asks_with_the_count_and_no_means_no(site: Site, tab: OpenTab) -> None:
    failed(site, 3, "doomed")
    page = tab().page
    page.goto(f"{site.url}/tasks?q=tag:doomed")
    page.get_by_text("that match").click()
    page.get_by_role("button", name="Delete all…").click()
    expect(page.locator("h1")).to_have_text("Delete 3 tasks?")
    page.get_by_role("link", name="No, go back").click()
    assert site.count("tag:doomed") == 3
    page.get_by_text("that match").click()
    page.get_by_role("button", name="Delete all…").click()
    page.get_by_role("button", name="Delete 3 tasks").click()
    message(page, "Started")
    until(lambda: site.count("tag:doomed") == 0, what="the deletion")
    expect(page.locator("#jobs")).to_contain_text("tag:doomed")


def test_retry_is_far_from_delete(site: Site, tab: OpenTab) -> None:
    [task_id] = failed(site, 1, "far")
    page = tab().page
    for path in (f"/tasks/{task_id}", "/tasks?q=tag:far"):
        page.goto(site.url + path)
        retry = page.get_by_role("button", name="Retry", exact=True).bounding_box()
        delete = page.get_by_role("button", name="Delete…").bounding_box()
        assert retry is not None
        assert delete is not None
        assert delete["x"] - (retry["x"] + retry["width"]) >= 24


def test_failures_of_a_group_are_retried_from_two_clicks_away(site: Site, tab: OpenTab) -> None:
    ids = failed(site, 2, "grouped")
    page = tab().page
    page.goto(site.url)
    page.get_by_role("link", name="All failures, grouped").click()
    page.wait_for_url("**/failed")
    page.locator("tbody tr").first.locator("a").first.click()
    page.wait_for_url(re.compile(r"/tasks\?q="))
    expect(page.locator(f"#t-{ids[0]}")).to_be_visible()
    page.go_back()
    page.get_by_role("button", name="Retry all…").first.click()
    expect(page.locator("h1")).to_contain_text("Retry")
    page.get_by_role("button", name=re.compile("^Retry ")).click()
    until(lambda: attempts(site, ids[0]) == 2, what="the second attempt")


def test_a_queue_and_a_name_are_paused_and_resumed(site: Site, tab: OpenTab) -> None:
    site.http.post("/api/v1/queues/shown/pause")
    site.submit("add", 1, 2, queue="shown")
    page = tab().page
    page.goto(f"{site.url}/queues")
    page.get_by_role("button", name="Pause tasks named add").first.click()
    message(page, "Paused")
    expect(page.locator("#paused")).to_contain_text("by dashboard")
    page.locator("#paused").get_by_role("button", name="Resume add").click()
    page.get_by_role("button", name="Resume queue shown").click()
    message(page, "Resumed")
    until(lambda: site.count("queue:shown state:succeeded") == 1, what="the end")


def test_a_worker_is_drained_and_gets_tasks_again(site: Site, tab: OpenTab) -> None:
    page = tab().page
    page.goto(f"{site.url}/workers")
    page.get_by_role("button", name=re.compile("^Drain ")).click()
    message(page, "Drained")
    expect(page.locator("tbody .state")).to_have_text("drained")
    page.get_by_role("button", name=re.compile("^Undrain ")).click()
    expect(page.locator("tbody .state")).to_have_text("ready")


def test_a_schedule_is_run_now_paused_and_resumed(site: Site, tab: OpenTab) -> None:
    wait_for(site.cluster.client.client.add_schedule("by-hand", "add", [20, 1], cron="0 6 1 1 *"))
    page = tab().page
    page.goto(f"{site.url}/schedules")
    page.get_by_role("button", name="Pause by-hand").click()
    message(page, "Paused")
    page.get_by_role("button", name="Resume by-hand").click()
    message(page, "Resumed")
    page.get_by_role("button", name="Run now by-hand").click()
    message(page, "Submitted")
    until(lambda: site.count("args:20 name:add state:succeeded") == 1, what="the end")
    page.goto(f"{site.url}/tasks?q=args:20+name:add")
    page.locator("#rows a").first.click()
    page.locator("#facts").get_by_role("link", name="by-hand").click()
    expect(page.locator("[id='s-by-hand']")).to_be_in_viewport()


def test_an_action_on_many_tasks_is_stopped_on_the_way(site: Site, tab: OpenTab) -> None:
    site.http.post("/api/v1/queues/long/pause")
    for _ in range(8):
        site.cluster.client.submit_many("add", [(n, 1) for n in range(1000)], queue="long")
    page = tab().page
    page.goto(f"{site.url}/tasks?q=queue:long")
    page.get_by_text("that match").click()
    page.get_by_role("button", name="Cancel all…").click()
    page.get_by_role("button", name=re.compile("^Cancel 8")).click()
    message(page, "Started in the background")
    expect(page.locator("#jobs progress").first).to_be_visible()
    page.locator("#jobs").get_by_role("button", name="Stop").click()
    message(page, "Stopped")
    expect(page.locator("#jobs tbody tr").first).to_contain_text("stopped")
    assert 0 < site.count("queue:long state:queued") < 8000
    site.http.post("/api/v1/bulk", json={"action": "delete", "q": "queue:long"})
    site.http.post("/api/v1/queues/long/resume")


def test_a_task_is_submitted_from_the_form_of_its_type(site: Site, tab: OpenTab) -> None:
    page = tab().page
    page.goto(f"{site.url}/types")
    page.get_by_role("link", name="add", exact=True).click()
    page.get_by_label("a integer").fill("20")
    page.get_by_label("b integer").fill("22")
    page.get_by_role("button", name="Submit").click()
    message(page, "Submitted")
    expect(page.locator("#result pre")).to_have_text("42")


def test_by_the_keyboard_alone_from_the_search_to_a_retry(site: Site, tab: OpenTab) -> None:
    ids = failed(site, 3, "keys")
    page = tab().page
    page.goto(site.url)
    page.keyboard.press("/")
    page.keyboard.type("tag:keys state:failed")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/tasks\?q="))
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("#selected")).to_have_text("1 selected")
    page.keyboard.press("Escape")
    expect(page.locator("#selected")).to_have_text("Selected")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/tasks/{ids[-1]}")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Retry":
            break
    page.keyboard.press("Enter")
    message(page, "Queued again")


def test_everything_that_can_be_reached_shows_where_the_focus_is(site: Site, tab: OpenTab) -> None:
    page = tab().page
    page.goto(f"{site.url}/tasks")
    seen = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        shown = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        seen.add(page.evaluate("document.activeElement.tagName"))
        assert shown != "none", page.evaluate("document.activeElement.outerHTML")
    assert {"A", "INPUT", "BUTTON"} <= seen
