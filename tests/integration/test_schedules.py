"""Schedules in a real control plane: each due time runs at most once, whatever is killed."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.waiting import until

TICKS = """
from fastworker import current_task, task
from tests.support.journal import write_down


def _tick() -> None:
    current = current_task()
    write_down("start", current.id, current.attempt, [current.name, current.headers["fastworker-due"]])


@task(every=1, misfire="once", overlap="allow")  # the kill may leave the run before unfinished
def once() -> None:
    _tick()


@task(every=1, misfire="skip")
def skip() -> None:
    _tick()


@task(cron="* * * * * *", misfire="all", overlap="allow")
def all_of_them() -> None:
    _tick()
"""


def ran(cluster: Cluster, name: str) -> list[str]:
    """The due times that ran, in the order in which they did."""
    return [event.payload[1] for event in cluster.journal.events("start") if event.payload[0] == name]


def test_a_due_time_runs_at_most_once_though_the_control_plane_is_killed(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        (tmp_path / "ticks.py").write_text(TICKS)
        control_plane = cluster.start("ticks", "--processes", "0")
        cluster.worker("ticks")  # it outlives the control plane
        until(lambda: len(ran(cluster, "all_of_them")) >= 2, what="the first runs")
        control_plane.kill()
        killed = time.time()
        until(lambda: time.time() > killed + 3.5, what="three missed seconds")
        cluster.start("ticks", "--processes", "0")
        again = time.time()
        until(lambda: all(len(after(ran(cluster, name), again)) >= 2 for name in ("once", "skip")), what="later runs")

        for name in ("once", "skip", "all_of_them"):
            assert max(Counter(ran(cluster, name)).values()) == 1, name
        missed = {name: between(ran(cluster, name), killed + 0.5, again - 2.0) for name in ("once", "skip")}
        assert len(missed["skip"]) == 0
        assert len(missed["once"]) <= 1
        everything = sorted(seconds(ran(cluster, "all_of_them")))
        assert everything == [everything[0] + n for n in range(len(everything))], "a second is missing"
        views = {view.schedule.name: view for view in cluster.client.schedules()}
        assert any(firing.why == "missed" for firing in views["skip"].history)
        assert any(firing.why == "made up for the missed ones" for firing in views["once"].history)


def seconds(due_times: list[str]) -> list[float]:
    return [datetime.fromisoformat(due).timestamp() for due in due_times]


def after(due_times: list[str], moment: float) -> list[float]:
    return [due for due in seconds(due_times) if due > moment]


def between(due_times: list[str], begin: float, end: float) -> list[float]:
    return [due for due in seconds(due_times) if begin < due < end]


def test_the_commands(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        assert cluster.run("schedules").out.startswith("no schedules")
        added = cluster.run("schedule", "add", "report", "echo", "--cron", "0 9 * * 1-5", "--args", '["x"]', "--json")
        assert added.json["answer"] == "added"
        assert "At 09:00 on Monday through Friday (UTC)" in cluster.run("schedules").out
        ran_now = cluster.run("schedule", "run", "report", "--json").json["task"]
        assert cluster.client.result(ran_now, 20) == "x"
        assert cluster.run("schedule", "pause", "report").code == 0
        (view,) = cluster.run("schedules", "--json").json
        assert (view["state"], view["next"], view["known"]) == ("paused", [], True)
        assert [firing["task"] for firing in view["history"]] == [ran_now]
        assert cluster.run("schedule", "resume", "report").code == 0
        assert cluster.run("schedule", "remove", "report").code == 0
        gone = cluster.run("schedule", "remove", "report")
        assert (gone.code, "there is no schedule 'report'" in gone.err) == (3, True)
        wrong = cluster.run("schedule", "add", "x", "echo", "--cron", "0 0 30 2 *")
        assert (wrong.code, "bad day-of-month" in wrong.err) == (2, True)
