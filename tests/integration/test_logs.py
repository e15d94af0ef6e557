"""What a worker's log says of the task that logged."""

from __future__ import annotations

import json

import pytest

from tests.support.cluster import Cluster
from tests.support.waiting import until

TASKS = """

import logging

logger = logging.getLogger("shop")


@task
def in_a_thread() -> str:
    logger.info("paid")
    return current_task().id


@task
async def in_the_loop() -> str:
    try:
        raise ValueError("no luck")
    except ValueError:
        logger.exception("not paid")
    return current_task().id
"""


@pytest.fixture
def shop(cluster: Cluster) -> Cluster:
    with (cluster.folder / "tasks.py").open("a") as tasks:
        tasks.write(TASKS)
    return cluster


def test_as_json_each_record_of_a_task_names_it(shop: Cluster) -> None:
    control_plane = shop.start("--log-format", "json")
    paid = shop.client.result(shop.client.submit("in_a_thread"), timeout=10)
    failed = shop.client.result(shop.client.submit("in_the_loop"), timeout=10)
    until(lambda: "not paid" in control_plane.log, 10, "the record")
    records = [json.loads(line) for line in control_plane.log.splitlines() if line.startswith("{")]
    first, second = (record for record in records if record["logger"] == "shop")
    assert (first["task_id"], first["task_name"], first["attempt"]) == (paid, "in_a_thread", 1)
    assert (first["level"], first["message"]) == ("info", "paid")
    assert "exception" not in first
    assert (second["task_id"], second["level"]) == (failed, "error")
    assert second["exception"].endswith("ValueError: no luck")
    outside = [record for record in records if record["logger"].startswith("fastworker")]
    assert outside
    assert not any("task_id" in record for record in outside)


def test_as_text_the_task_stands_before_the_message(shop: Cluster) -> None:
    control_plane = shop.start(FASTWORKER_LOG_FORMAT="text")
    paid = shop.client.result(shop.client.submit("in_a_thread"), timeout=10)
    until(lambda: f"INFO    [in_a_thread {paid}] paid" in control_plane.log, 10, "the record")
