"""Each client gets the answers to its own questions, all of them, and each task runs once."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.chaos.conftest import Figures
from tests.support.cluster import Cluster
from tests.support.judge import judge


def test_twenty_clients_get_right_answers_from_two_workers(cluster: Cluster, figures: Figures, full: bool) -> None:
    total, processes = (100_000, 20) if full else (10_000, 4)
    clients = 20 // processes
    cluster.start("--processes", "0")
    for name in ("first", "second"):
        cluster.worker(name=name)

    def run(number: int) -> Any:
        words = [sys.executable, "-m", "tests.support.load", cluster.url]
        done = cluster.execute([*words, str(number * clients), str(clients), str(total // 20)], timeout=3000)
        assert done.code == 0, done.err
        return done.json

    began = time.monotonic()
    with ThreadPoolExecutor(processes) as pool:
        reports = list(pool.map(run, range(processes)))
    seconds = time.monotonic() - began

    submitted = {task: payload for report in reports for task, payload in report["submitted"].items()}
    right = {task for report in reports for task in report["right"]}
    crossed = {task for report in reports for task in report["crossed"]}
    verdict = judge(submitted, right, cluster.journal)
    by_worker = {event.pid for event in cluster.journal.events("start")}
    figures("right answers", f"{verdict}; {len(right)} right; 20 clients in {processes} processes, {seconds:.1f} s")
    assert len(set(submitted.values())) == total
    assert len(right) == total
    assert not crossed
    assert verdict.clean
    assert not verdict.double
    assert len(by_worker) == 2
