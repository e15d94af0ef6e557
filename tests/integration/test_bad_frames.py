"""Bytes that no peer of ours would send, while another client works undisturbed."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from fastworker import BlockingClient, TaskFailed
from fastworker.protocol import MAX_FRAME_BYTES, PROTOCOL_VERSION
from fastworker.tasks import new_task_id
from fastworker_server.door import ANSWERED_GARBAGE
from fastworker_server.sessions import MOST_KEPT
from tests.support.cluster import Cluster
from tests.support.stranger import Stranger, hello, stranger
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def undisturbed(running: Cluster) -> Iterator[None]:
    """Another client submits and gets right answers all the while, and the control plane stays the same process."""
    stop = threading.Event()
    answers: list[bool] = []
    log_before = len(running.programs[0].log)

    def work() -> None:
        with BlockingClient(running.url) as client:
            while not stop.is_set() or len(answers) < 20:
                answers.append(client.result(client.delay("add", len(answers), 1), 10) == len(answers) + 1)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join(30)
    assert len(answers) >= 20
    assert all(answers)
    assert running.programs[0].alive
    assert "Traceback" not in running.programs[0].log[log_before:]


GARBAGE = [
    b"",
    b"\0",
    b"GET / HTTP/1.1\r\n\r\n",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b'{"session":"a","seq":1,"ack":0}',
    b'{"session":1,"seq":"x","ack":0,"items":[]}',
    b'{"session":"a","seq":1,"ack":0,"items":[{"kind":"no such kind"}]}',
    b'{"session":"a","seq":1,"ack":0,"items":[{"kind":"hello"}]}',
    b'{"session":"a","seq":1,"ack":0,"items":[{"kind":"hello","role":"king","version":1,"name":"x"}]}',
    b'{"session":"a","seq":1e400,"ack":0,"items":[]}',
    b'{"session":"\xff\xfe","seq":1,"ack":0,"items":[]}',
    b"[" * 100_000,
    b'{"session":"a","seq":1,"ack":0,"items":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b"x" * 1_000_000,
]


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: repr(body[:40]))
def test_garbage_is_refused_as_malformed(running: Cluster, body: bytes) -> None:
    with stranger(running.url) as one:
        one.say(body)
        code, message = one.hears_refusal()
    assert code == "malformed"
    assert len(message) < 1000


def test_random_bytes_and_truncated_frames(running: Cluster) -> None:
    chance = random.Random(11)
    whole = json.dumps({"session": "cut", "seq": 1, "ack": 0, "items": [hello()]}).encode()
    garbage = [chance.randbytes(chance.randrange(2000)) for _ in range(200)]
    garbage += [whole[:length] for length in range(0, len(whole), 3)]
    for start in range(0, len(garbage), ANSWERED_GARBAGE):
        with stranger(running.url) as one:
            for body in garbage[start : start + ANSWERED_GARBAGE]:
                one.say(body)
                assert one.hears_refusal()[0] == "malformed"
    with stranger(running.url) as one:
        for _ in range(200):
            changed = bytearray(whole)
            changed[chance.randrange(len(whole))] = chance.randrange(256)
            one.say(bytes(changed))
    log = running.programs[0].log
    assert log.count("can't be read as a frame") < 200, "one line per connection, not one per frame"


def test_headers_that_are_none_of_ours(running: Cluster) -> None:
    with stranger(running.url) as one:
        for header in ((), (1,), (1, 2, 3), (0x80000001, 0x80000001), tuple(range(15))):
            one.say(b"{}", header)
    with stranger(running.url) as one:  # NNG hangs up on some of those
        one.say(b"{}")
        assert one.hears_refusal()[0] == "malformed"


def test_a_frame_without_hello(running: Cluster) -> None:
    with stranger(running.url) as one:
        one.say_frame("never seen", 1, {"kind": "query", "request": 1, "what": "stats"})
        assert one.hears_refusal()[0] == "unknown-session"
        one.say_frame("never seen", 7)
        assert one.hears_refusal()[0] == "unknown-session"


def test_another_version_is_told_which_ones_speak_what(running: Cluster) -> None:
    with stranger(running.url) as one:
        one.say_frame("future", 1, hello(version=PROTOCOL_VERSION + 1, release="9.9.9"))
        code, message = one.hears_refusal()
    assert code == "version"
    assert f"speaks protocol {PROTOCOL_VERSION}" in message
    assert "9.9.9" in message
    assert "use the same release on both" in message


def test_messages_that_are_not_for_a_client_or_not_for_a_control_plane(running: Cluster) -> None:
    with stranger(running.url) as one:
        one.say_frame("pretender", 1, hello())
        assert one.hears()["items"][0]["kind"] == "welcome"
        for seq, message in enumerate(
            (
                {"kind": "outcomes", "number": 1, "items": []},
                {"kind": "heartbeat"},
                {"kind": "handback", "items": [{"id": "x", "attempt": 1}]},
                {"kind": "run", "items": []},
                {"kind": "results", "items": []},
                {"kind": "welcome", "instance": "me", "release": "1"},
            ),
            start=2,
        ):
            one.say_frame("pretender", seq, message, ack=seq)
            assert one.hears_refusal()[0] == "not-allowed"


def test_a_submission_with_an_id_that_is_none(running: Cluster) -> None:
    with stranger(running.url) as one:
        one.say_frame("bad ids", 1, hello())
        one.hears()
        for seq, task_id in enumerate(("", "x", "../../etc/passwd", "a" * 5000), start=2):
            task = {"id": task_id, "name": "add", "args": "[1,2]"}
            one.say_frame("bad ids", seq, {"kind": "submit", "request": seq, "tasks": [task]}, ack=seq)
            assert one.hears_refusal()[0] == "malformed"


EXTREME: list[dict[str, Any]] = [
    {"retries": 10**30},
    {"retries": -1},
    {"delay": 1e300},
    {"delay": -5},
    {"eta": 1e300},
    {"expires": 1e300},
    {"expires": -5},
    {"timeout": -1},
    {"timeout": 1e300},
    {"result_ttl": 1e300},
    {"queue": ""},
    {"queue": "q" * 100_000},
    {"queue": "a\0b"},
    {"backoff": {"kind": "exponential", "base": 1e300, "cap": 1e300, "jitter": False}},
    {"tags": ["t" * 100_000]},
]


@pytest.mark.parametrize("options", EXTREME, ids=lambda options: json.dumps(options)[:50])
def test_a_submission_with_extreme_options(running: Cluster, options: dict[str, Any]) -> None:
    """Our client refuses most of these; whoever speaks the protocol must not be able to stop the store with them."""
    task: dict[str, Any] = {"id": new_task_id(), "name": "fail", "args": "[]", "options": options}
    with stranger(running.url) as one:
        one.say_frame(f"extreme {options}", 1, hello())
        one.hears()
        one.say_frame(f"extreme {options}", 2, {"kind": "submit", "request": 1, "tasks": [task]}, ack=1)
        assert one.hears()["items"][0]["kind"] in ("accepted", "refused")
    running.client.cancel(task["id"])


@pytest.mark.parametrize(
    "query",
    [
        {"what": "list", "limit": 10**30},
        {"what": "list", "limit": -1},
        {"what": "list", "before": 10**30},
        {"what": "list", "name": "a\0b"},
        {"what": "info", "task": "x" * 1_000_000},
        {"what": "why"},
    ],
    ids=lambda query: json.dumps(query)[:40],
)
def test_an_extreme_question_is_answered(running: Cluster, query: dict[str, Any]) -> None:
    with stranger(running.url) as one:
        one.say_frame(f"asks {query}"[:100], 1, hello())
        one.hears()
        one.say_frame(f"asks {query}"[:100], 2, {"kind": "query", "request": 1, **query}, ack=1)
        [item] = one.hears()["items"]
        assert item["kind"] in ("answer", "refused")


def test_a_worker_with_extreme_figures(running: Cluster) -> None:
    """What it says of its times must not spoil the estimates, the store or the answers."""
    session = "extreme worker"
    definition = {"name": "only_here", "options": {}, "parameters": {}, "doc": ""}
    numbers = ("1e300", "-1e300", "-5")
    with stranger(running.url) as one:
        one.say_frame(session, 1, hello("worker", slots=1, host="elsewhere", pid=1, definitions=[definition]))
        one.hears()
        for seq, number in enumerate(numbers, start=2):
            task_id = str(running.client.delay("only_here"))
            assert [order["id"] for order in one.hears_a("run")["items"]] == [task_id]
            for said in ("1e400", "-1e400", number):
                one.say(
                    f'{{"session":"{session}","seq":{seq},"ack":{seq},"items":[{{"kind":"outcomes","number":{seq},'
                    f'"items":[{{"id":"{task_id}","attempt":1,"status":"succeeded","started":{said},"ran":{said},'
                    '"result":"1"}]}]}'.encode()
                )
                if said != number:
                    assert one.hears_a("refused")["code"] == "malformed"
            assert running.client.result(task_id, 10) == 1
            assert running.run("status", task_id).code == 0
        one.say_frame(session, len(numbers) + 2, {"kind": "goodbye"}, ack=99)


def test_a_frame_that_is_replayed_counts_once(running: Cluster) -> None:
    task = {"id": "01900000-0000-7000-8000-00000000abcd", "name": "work", "args": '["replayed"]'}
    with stranger(running.url) as one:
        one.say_frame("replay", 1, hello())
        one.hears()
        for _ in range(20):
            one.say_frame("replay", 2, {"kind": "submit", "request": 1, "tasks": [task]}, ack=1)
        until(lambda: running.client.info(task["id"]).state == "succeeded", what="the end of the task")
    with stranger(running.url) as other:  # and in another session: the id says that it is the same task
        again = {"kind": "submit", "request": 1, "tasks": [{**task, "again": True}]}
        other.say_frame("replay again", 1, hello(), again)
        kinds = [item["kind"] for item in other.hears()["items"]]
        assert "welcome" in kinds
        until(lambda: running.client.result(task["id"], 5) == "done:replayed")
    assert running.journal.starts_by_task()[task["id"]] == 1


def test_a_gap_in_the_numbers_delivers_nothing(running: Cluster) -> None:
    task = {"id": "01900000-0000-7000-8000-00000000dcba", "name": "work", "args": '["gap"]'}
    with stranger(running.url) as one:
        one.say_frame("gap", 1, hello())
        one.hears()
        one.say_frame("gap", 3, {"kind": "submit", "request": 1, "tasks": [task]}, ack=1)
        assert json.loads(one._socket.recv())["ack"] == 1
        assert running.run("status", task["id"]).code == 3
        one.say_frame("gap", 2, {"kind": "submit", "request": 1, "tasks": [task]}, ack=1)
        until(lambda: running.client.result(task["id"], 5) == "done:gap")


def test_a_connection_that_goes_on_with_a_session_gives_up_its_own(running: Cluster) -> None:
    with stranger(running.url) as one, stranger(running.url) as other:
        one.say_frame("first", 1, hello())
        one.hears_a("welcome")
        other.say_frame("second", 1, hello())
        other.hears_a("welcome")
        other.say_frame("first", 2, {"kind": "query", "request": 1, "what": "definitions"}, ack=1)
        other.hears_a("answer")
        other.say_frame("second", 2, {"kind": "query", "request": 2, "what": "definitions"}, ack=1)
        assert other.hears_a("refused")["code"] == "unknown-session"


def test_of_many_that_went_away_the_first_are_forgotten(running: Cluster) -> None:
    for number in range(MOST_KEPT + 1):
        with stranger(running.url) as one:
            one.say_frame(f"leaver {number}", 1, hello())
            one.hears_a("welcome")
    question = {"kind": "query", "request": 1, "what": "definitions"}
    with stranger(running.url) as first:
        first.say_frame("leaver 0", 2, question, ack=1)
        assert first.hears_a("refused")["code"] == "unknown-session"
    with stranger(running.url) as last:
        last.say_frame(f"leaver {MOST_KEPT}", 2, question, ack=1)
        last.hears_a("answer")


def test_acknowledgements_of_what_was_never_sent(running: Cluster) -> None:
    with stranger(running.url) as one:
        one.say_frame("boaster", 1, hello(), ack=1_000_000)
        assert one.hears()["items"][0]["kind"] == "welcome"
        one.say_frame("boaster", 2, {"kind": "query", "request": 1, "what": "stats"}, ack=-5)
        assert one.hears()["items"][-1]["kind"] in ("answer", "welcome")


def test_a_worker_that_reports_what_it_never_got(running: Cluster) -> None:
    running.client.pause(name="echo")
    task_id = str(running.client.delay("echo", 1))
    outcome = {"id": task_id, "attempt": 1, "status": "succeeded", "started": 0, "ran": 0, "result": '"forged"'}
    unknown = {**outcome, "id": "01900000-0000-7000-8000-0000000000ff"}
    with stranger(running.url) as one:
        one.say_frame("forger", 1, hello("worker", slots=0, host="elsewhere", pid=1))
        one.hears()
        one.say_frame("forger", 2, {"kind": "outcomes", "number": 1, "items": [unknown]}, ack=1)
        one.say_frame("forger", 3, {"kind": "handback", "items": [{"id": task_id, "attempt": 1}]}, ack=1)
        one.say_frame("forger", 4, {"kind": "goodbye"}, ack=1)
        time.sleep(0.2)
    assert running.client.info(task_id).state == "queued"
    running.client.resume(name="echo")
    assert running.client.result(task_id, 15) == 1


def test_a_frame_over_the_limit_ends_the_connection_only(running: Cluster) -> None:
    with stranger(running.url) as one:
        one.say(b"x" * (MAX_FRAME_BYTES + 1))
    with stranger(running.url) as other:
        other.say(b"{}")
        assert other.hears_refusal()[0] == "malformed"


def test_many_strangers_that_say_nothing_leave_nothing_behind(running: Cluster) -> None:
    process = psutil.Process(running.programs[0].pid)
    before = process.num_fds()
    strangers = [Stranger(running.url) for _ in range(100)]
    assert process.num_fds() >= before + 100
    for one in strangers:
        one.close()
    until(lambda: process.num_fds() <= before + 5, what="the descriptors to be closed")


def test_a_flood_of_garbage_starves_nobody(running: Cluster) -> None:
    began = time.monotonic()
    one = Stranger(running.url)
    with BlockingClient(running.url) as client:
        slowest = 0.0
        while time.monotonic() - began < 2:
            if one.says_until_gone(b"garbage" * 100, 50):
                one.close()
                one = Stranger(running.url)
            asked = time.monotonic()
            assert client.result(client.delay("add", 1, 1), 15) == 2
            slowest = max(slowest, time.monotonic() - asked)
    one.close()
    assert slowest < 1.0


@pytest.mark.parametrize(
    "args",
    [
        "[" * 100_000,
        "[" * 50_000 + "]" * 50_000,
        '{"a":' * 3000 + "1" + "}" * 3000,
        f"[{'9' * 1_000_000},1]",
        "[1e999999,1]",
    ],
    ids=["an abyss", "a deep list", "a deep object", "a million digits", "a huge exponent"],
)
def test_arguments_too_deep_or_too_long_fail_their_task_only(running: Cluster, args: str) -> None:
    task_id = new_task_id()
    with stranger(running.url) as one:
        one.say_frame(one.session, 1, hello())
        one.hears_a("welcome")
        task = {"id": task_id, "name": "add", "args": args}
        one.say_frame(one.session, 2, {"kind": "submit", "request": 1, "tasks": [task]}, ack=1)
        one.hears_a("accepted")
    with pytest.raises(TaskFailed) as caught:
        running.client.result(task_id, 10)
    assert caught.value.error_type == "fastworker.errors.InvalidArguments"
    assert len(str(caught.value)) < 10_000
