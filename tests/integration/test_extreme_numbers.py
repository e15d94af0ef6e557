"""Every number of every message made extreme: whatever a peer says, everybody else goes on, after a restart too."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from fastworker.protocol import PROTOCOL_VERSION
from tests.security.mutate import SEEDS
from tests.support.cluster import Cluster
from tests.support.stranger import HungUp, hello, stranger

EXTREMES = (
    "-1", "0", "1.5", "1e308", "-1e308", "1e400", "-1e400", "1e-320", "NaN", "9" * 400,
    str(2**63), str(-(2**63) - 1),
)  # fmt: skip
NUMBER = re.compile(r'(?<![\w"-])-?\d+(\.\d+)?(?![\w"-])')
OPTIONS = {
    "retries": 1, "backoff": {"kind": "linear", "base": 2.5, "cap": 3.5}, "timeout": 1.5, "hard_timeout": 9.5,
    "delay": 1.25, "eta": 2.25, "expires": 3.25, "result_ttl": 4.25,
}  # fmt: skip
LIMITS = {"rates": [{"count": 5, "period": 1.5}], "max_concurrency": 2}
SUBMISSION = {"id": "ID", "name": "add", "args": "[1,2]", "options": OPTIONS}
SCHEDULE = {"name": "often", "task": "add", "timing": {"every": 60.5, "start": 5.5, "end": 1e11, "count": 3}}
MESSAGES: list[dict[str, Any]] = [
    *SEEDS[1:],
    {"kind": "submit", "request": 1, "tasks": [SUBMISSION]},
    {"kind": "submit", "request": 1, "tasks": [{**SUBMISSION, "ties": {"unique": "u", "unique_while": 5.5}}]},
    {
        "kind": "schedules", "request": 7, "action": "add", "name": "often",
        "schedule": {**SCHEDULE, "args": "[]", "options": OPTIONS},
    },
    {"kind": "control", "request": 8, "action": "limit", "name": "add", "limits": LIMITS},
    {
        "kind": "hello", "role": "worker", "version": PROTOCOL_VERSION, "name": "extreme", "host": "h", "pid": 5,
        "slots": 2, "definitions": [{"name": "mine", "options": OPTIONS, "limits": LIMITS}],
    },
]  # fmt: skip


def extreme_messages() -> Iterator[str]:
    """Each message once for each number in it and each extreme."""
    changed = (
        text[: found.start()] + extreme + text[found.end() :]
        for text in map(json.dumps, MESSAGES)
        for found in NUMBER.finditer(text)
        for extreme in EXTREMES
    )
    for number, message in enumerate(changed):
        yield message.replace('"ID"', f'"01900000-0000-7000-8000-{number:012x}"')


def test_whatever_numbers_a_peer_says_the_others_see_and_do_all_as_before(cluster: Cluster) -> None:
    said = 0
    program = cluster.start()
    for said, message in enumerate(extreme_messages(), 1):
        with stranger(cluster.url) as one, contextlib.suppress(HungUp):
            begin = json.dumps(hello())
            one.say(f'{{"session":"extreme {said}","seq":1,"ack":0,"items":[{begin},{message}]}}'.encode())
            one.hears()
    assert said > 500
    everything_is_seen_and_works(cluster)
    program.kill()
    program = cluster.start()
    everything_is_seen_and_works(cluster)
    assert program.terminate() == 0
    cluster.start()
    everything_is_seen_and_works(cluster)
    assert not [log for _, log in cluster.logs() if "Traceback" in log]


def everything_is_seen_and_works(cluster: Cluster) -> None:
    client = cluster.client
    client.reset_limits("add")
    assert client.result(client.delay("add", 2, 2), 30) == 4
    tasks = client.list(limit=500)
    assert {task.id for task in tasks} <= {task.id for task in client.search("name:add", limit=1000).tasks}
    for look in (client.stats, client.workers, client.queues, client.limits, client.schedules, client.facets):
        look()
    client.failures()
