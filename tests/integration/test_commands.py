"""Every command of the command line, end to end."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import Cluster, free_port
from tests.support.waiting import until

TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UNKNOWN_ID = "01900000-0000-7000-8000-000000000000"


def started(cluster: Cluster, task_id: str) -> None:
    until(lambda: any(event.task == task_id for event in cluster.journal.events("start")), what="the start of the task")


@pytest.fixture
def blocked(running: Cluster) -> Iterator[Cluster]:
    """The queue `default` is paused, so that what is submitted stays queued."""
    running.client.pause(queue="default")
    yield running
    running.client.resume(queue="default")


# ---- submit ------------------------------------------------------------------------------------------------------


def test_submit_with_an_object_waits_and_prints_the_result(running: Cluster) -> None:
    done = running.run("submit", "add", "--args", '{"a": 2, "b": 3}')
    assert (done.code, done.out, done.err) == (0, "5\n", "")


def test_submit_with_an_array(running: Cluster) -> None:
    done = running.run("submit", "add", "--args", "[20, 22]")
    assert (done.code, done.out) == (0, "42\n")


def test_submit_without_waiting_prints_the_id_and_result_prints_the_result(running: Cluster) -> None:
    done = running.run("submit", "add", "--args", "[1, 2]", "--no-wait")
    assert done.code == 0
    assert TASK_ID.fullmatch(done.out.strip())
    result = running.run("result", done.out.strip(), "--wait-for", "10")
    assert (result.code, result.out) == (0, "3\n")


def test_submit_prints_json(running: Cluster) -> None:
    done = running.run("submit", "add", "--args", "[1, 2]", "--json")
    assert done.json["result"] == 3
    assert TASK_ID.fullmatch(done.json["id"])
    no_wait = running.run("submit", "add", "--args", "[1, 2]", "--json", "--no-wait")
    assert TASK_ID.fullmatch(no_wait.json["id"])


def test_submit_waits_no_longer_than_it_was_told_and_the_task_goes_on(running: Cluster) -> None:
    done = running.run("submit", "nap", "--args", "[2, 7]", "--wait-for", "0.2")
    assert done.code == 5
    assert "it goes on" in done.err
    assert "Traceback" not in done.err
    found = TASK_ID.search(done.err)
    assert found
    assert running.run("result", found[0]).out == "7\n"


def test_who_waits_long_is_told_why_once(running: Cluster) -> None:
    done = running.run("submit", "ad", "--args", "[1, 2]", "--wait-for", "5", "--json")
    assert done.code == 5
    assert done.out == ""
    why, limit = done.err.splitlines()
    assert why == (
        "queued: no connected worker knows a task named 'ad'; "
        "check the spelling ('add' is known), or start a worker with the module that defines it"
    )
    assert limit.endswith("has not ended within 5 s; it goes on")


def test_who_waits_no_longer_is_told_how_to_go_on(blocked: Cluster) -> None:
    waiting = blocked.launch("waiting", ["fastworker", "submit", "add", "--args", "[1, 2]"])
    until(lambda: "is paused; fastworker resume --queue default" in waiting.log, what="the reason")
    waiting.signal(signal.SIGINT)
    assert waiting.wait() == 130
    said = waiting.log.splitlines()[-1]
    assert said.startswith("the task goes on; to wait for it again: fastworker result ")
    blocked.client.resume(queue="default")
    assert blocked.run(*said.split()[-2:]).out == "3\n"


def test_a_failed_task_is_told_with_its_own_traceback(running: Cluster) -> None:
    done = running.run("submit", "fail", "--args", '["bad luck"]')
    assert done.code == 1
    assert "ValueError: bad luck" in done.err
    assert "tasks.py" in done.err
    assert "fastworker" not in done.err.replace("/fastworker/", "") or "packages/" not in done.err


def test_submit_with_every_option(running: Cluster) -> None:
    done = running.run(
        "submit", "echo", "--args", '["x"]', "--priority", "critical", "--queue", "side", "--delay", "0.1",
        "--expires", "30", "--retries", "2", "--timeout", "5", "--strict", "--json",
    )  # fmt: skip
    assert done.json["result"] == "x"
    info = running.client.info(done.json["id"])
    assert (info.queue, info.priority) == ("side", "critical")


# ---- status ------------------------------------------------------------------------------------------------------


def test_status_tells_where_a_task_stands(running: Cluster) -> None:
    done = running.run("submit", "add", "--args", "[1, 2]", "--json")
    status = running.run("status", done.json["id"])
    assert status.code == 0
    for word in ("add", "succeeded", "default, normal", "[1,2]", "3"):
        assert word in status.out
    as_json = running.run("status", done.json["id"], "--json").json
    assert (as_json["state"], as_json["result"], as_json["attempt"]) == ("succeeded", "3", 1)


def test_status_of_a_failed_task_shows_the_traceback(running: Cluster) -> None:
    task_id = running.client.delay("fail", "[bold]bad[/bold]")
    until(lambda: running.client.info(task_id).state == "failed")
    status = running.run("status", task_id)
    assert "ValueError: [bold]bad[/bold]" in status.out
    assert "in fail" in status.out


def test_status_shows_progress_and_log_lines_of_a_task_that_runs_elsewhere(running: Cluster, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    task_id = running.client.delay("wait_for_file", str(go_on))
    until(lambda: running.client.info(task_id).log, what="log lines")
    status = running.run("status", task_id).out
    for words in ("running", "40% resizing", "| first line", "| [red]second line[/red]"):
        assert words in status
    go_on.touch()
    assert running.client.result(task_id, 10) == "seen"


# ---- cancel ------------------------------------------------------------------------------------------------------


def test_cancel_a_queued_task(blocked: Cluster) -> None:
    task_id = blocked.client.delay("add", 1, 2)
    done = blocked.run("cancel", task_id, "--json")
    assert done.json == {"id": task_id, "answer": "was_queued"}
    assert blocked.client.info(task_id).state == "cancelled"
    result = blocked.run("result", task_id)
    assert result.code == 1
    assert "cancelled" in result.err


def test_cancel_a_running_coroutine(running: Cluster) -> None:
    task_id = running.client.delay("nap_async", 60)
    started(running, task_id)
    done = running.run("cancel", task_id)
    assert done.code == 0
    assert done.out.startswith("interrupted: ")
    assert running.client.info(task_id).state == "cancelled"


def test_cancel_a_running_thread(running: Cluster) -> None:
    task_id = running.client.delay("polite")
    started(running, task_id)
    done = running.run("cancel", task_id)
    assert done.code == 0
    assert done.out.startswith("asked: ")
    until(lambda: running.journal.count("end"), what="the end of the polite task")


def test_cancel_what_has_ended(running: Cluster) -> None:
    task_id = running.client.delay("add", 1, 2)
    assert running.client.result(task_id, 10) == 3
    done = running.run("cancel", task_id)
    assert done.code == 1
    assert done.out.startswith("already_done: ")


def test_cancel_what_never_was(running: Cluster) -> None:
    done = running.run("cancel", UNKNOWN_ID)
    assert done.code == 3
    assert done.out.startswith("not_found: ")


# ---- retry -------------------------------------------------------------------------------------------------------


def test_retry_runs_an_ended_task_again(running: Cluster) -> None:
    task_id = running.client.delay("work", "again")
    assert running.client.result(task_id, 10) == "done:again"
    done = running.run("retry", task_id)
    assert (done.code, done.out) == (0, "queued again\n")
    until(lambda: running.journal.starts_by_task()[task_id] == 2, what="a second start")


def test_retry_leaves_an_open_task_alone(blocked: Cluster) -> None:
    task_id = blocked.client.delay("add", 1, 2)
    done = blocked.run("retry", task_id, "--json")
    assert done.code == 1
    assert done.json == {"id": task_id, "queued": False}


@pytest.mark.parametrize("command", ["status", "why", "retry", "result"])
def test_a_task_that_never_was(running: Cluster, command: str) -> None:
    done = running.run(command, UNKNOWN_ID)
    assert done.code == 3
    assert f"there is no task {UNKNOWN_ID}" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["status", "result"])
def test_what_is_not_a_task_id_at_all(running: Cluster, command: str) -> None:
    done = running.run(command, "nonsense")
    assert done.code == 3
    assert "there is no task nonsense" in done.err


# ---- why ---------------------------------------------------------------------------------------------------------


def test_why_names_a_paused_queue_and_what_to_do(blocked: Cluster) -> None:
    task_id = blocked.client.delay("add", 1, 2)
    done = blocked.run("why", task_id)
    assert done.code == 0
    assert "the queue 'default' is paused" in done.out
    assert "try: fastworker resume --queue default" in done.out
    assert blocked.run("why", task_id, "--json").json["code"] == "paused"


def test_why_names_the_time_of_a_delayed_task(running: Cluster) -> None:
    task_id = running.client.submit("add", [1, 2], delay=60)
    explanation = running.run("why", task_id, "--json").json
    assert explanation["code"] == "scheduled"
    assert 50 < explanation["until"] - time.time() <= 60
    running.client.cancel(task_id)


def test_why_names_the_worker_of_a_running_task(running: Cluster) -> None:
    task_id = running.client.delay("nap_async", 60)
    started(running, task_id)
    done = running.run("why", task_id)
    assert "it is running: attempt 1 at " in done.out
    running.client.cancel(task_id)
    assert running.run("why", task_id, "--json").json["code"] == "ended"


def test_why_names_the_error_that_a_task_is_retried_after(running: Cluster) -> None:
    task_id = running.client.submit("fail", ["no luck"], retries=1, backoff=60)
    until(lambda: running.client.info(task_id).state == "retrying")
    done = running.run("why", task_id)
    assert "attempt 1 failed: builtins.ValueError: no luck" in done.out
    running.client.cancel(task_id)


# ---- list, workers, queues ---------------------------------------------------------------------------------------


def test_list_filters(running: Cluster) -> None:
    client = running.client
    in_queue = client.submit("echo", [1], queue="listed")
    failed = client.submit("fail", ["x"], queue="listed")
    until(lambda: client.info(failed).state == "failed" and client.info(in_queue).state == "succeeded")

    def ids(*filters: str) -> list[str]:
        return [task["id"] for task in running.run("list", "--json", *filters).json]

    assert ids("--queue", "listed") == [failed, in_queue]
    assert ids("--queue", "listed", "--state", "failed") == [failed]
    assert ids("--queue", "listed", "--name", "echo") == [in_queue]
    assert ids("--queue", "listed", "--limit", "1") == [failed]
    assert ids("--queue", "nowhere") == []
    table = running.run("list", "--queue", "listed").out
    assert in_queue in table
    assert failed in table
    assert "no tasks" in running.run("list", "--queue", "nowhere").out


def test_a_row_of_a_list_is_a_line_in_a_narrow_terminal_too(running: Cluster) -> None:
    task_id = running.run("submit", "add", "--args", "[1, 2]", "--no-wait").out.strip()
    running.client.result(task_id, 10)
    listed = running.run("list", "--name", "add", COLUMNS="40")
    [row] = [line for line in listed.out.splitlines() if task_id in line]
    assert row.split()[2:6] == ["add", "succeeded", "normal", "1"]


def test_list_refuses_a_state_that_there_is_not(running: Cluster) -> None:
    done = running.run("list", "--state", "done")
    assert done.code == 2
    assert "succeeded" in done.err


def test_workers_lists_the_control_planes_own(running: Cluster) -> None:
    views = running.run("workers", "--json").json
    assert [(view["own"], view["connected"], view["slots"]) for view in views] == [(True, True, 8)]
    assert "own" in running.run("workers").out
    memory = until(lambda: running.run("workers", "--json").json[0]["memory"], what="the first heartbeat")
    assert memory == pytest.approx(psutil.Process(views[0]["pid"]).memory_info().rss, rel=0.2)
    assert " MB " in running.run("workers").out


def test_queues_tells_what_waits_and_why(blocked: Cluster) -> None:
    task_id = blocked.client.submit("add", [1, 2], priority="high")
    lanes = blocked.run("queues", "--json").json
    lane = next(lane for lane in lanes if lane["name"] == "add")
    assert lane["queued"]["high"] == 1
    assert lane["held"] == "paused"
    assert "paused" in blocked.run("queues").out
    blocked.client.cancel(task_id)


# ---- pause and resume --------------------------------------------------------------------------------------------


def test_pause_a_name_and_resume_it(running: Cluster) -> None:
    assert running.run("pause", "--name", "echo").code == 0
    held = running.client.delay("echo", 1)
    assert running.run("submit", "add", "--args", "[1, 2]").out == "3\n"
    assert running.client.info(held).state == "queued"
    assert "tasks named 'echo' are paused" in running.run("why", held).out
    assert running.run("resume", "--name", "echo").code == 0
    assert running.client.result(held, 10) == 1


@pytest.mark.parametrize("words", [["pause"], ["resume"], ["pause", "--queue", "a", "--name", "b"]])
def test_pause_wants_one_thing(running: Cluster, words: list[str]) -> None:
    done = running.run(*words)
    assert done.code == 2
    assert "say one of --queue QUEUE, --name NAME and --worker WORKER" in done.err


def test_a_pause_outlives_a_restart(cluster: Cluster) -> None:
    control_plane = cluster.start()
    cluster.run("pause", "--queue", "default")
    task_id = cluster.client.delay("add", 1, 2)
    assert control_plane.terminate() == 0
    cluster.start()
    assert "is paused" in cluster.run("why", task_id).out
    cluster.run("resume", "--queue", "default")
    assert cluster.client.result(task_id, 15) == 3


# ---- doctor and the rest -----------------------------------------------------------------------------------------


def test_doctor_of_a_sound_installation(running: Cluster) -> None:
    done = running.run("doctor")
    assert done.code == 0
    for word in ("python", "fastworker-core", "sqlite", "control plane", running.url):
        assert word in done.out
    assert running.run("doctor", "--json").json["ok"] is True


def test_version_and_help(running: Cluster) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", running.run("--version").out)
    for words in ([], ["worker", "start"]):
        done = running.run(*words, "--help")
        assert done.code == 0
        assert "Usage:" in done.out


def test_a_command_that_there_is_not(running: Cluster) -> None:
    done = running.run("sumbit", "add")
    assert done.code == 2
    assert "Traceback" not in done.err


# ---- the spellings of 0.3.0 --------------------------------------------------------------------------------------


def test_submit_as_in_0_3_0(running: Cluster) -> None:
    done = running.run("submit", "--task-name", "add", "--args", "5", "3")
    assert (done.code, done.out) == (0, "8\n")
    later = running.run("submit", "--task-name", "add", "--args", "5", "3", "--non-blocking")
    assert TASK_ID.fullmatch(later.out.strip())
    assert running.client.result(later.out.strip(), 10) == 8


def test_status_and_cancel_as_in_0_3_0(running: Cluster) -> None:
    task_id = running.client.delay("add", 1, 2)
    running.client.result(task_id, 10)
    assert "succeeded" in running.run("status", "--task-id", task_id).out
    assert running.run("cancel", "--task-id", task_id).out.startswith("already_done")


def test_control_plane_and_subworker_as_in_0_3_0(cluster: Cluster) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    control_plane = cluster.program(
        "control-plane", "control-plane", "--base-address", address, "--task-modules", "tasks"
    )
    until(lambda: "FastWorker control plane" in control_plane.log, what="the start")
    subworker = cluster.program(
        "second", "subworker", "--worker-id", "sub-1", "--control-plane-address", address, "--task-modules", "tasks"
    )
    until(lambda: "sub-1" in cluster.workers(), what="the subworker")
    pid = json.loads(cluster.run("submit", "--task-name", "where").out)
    assert pid == subworker.pid
    assert subworker.terminate() == 0
    assert control_plane.terminate() == 0
