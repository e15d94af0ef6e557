"""Every message crosses the wire; whatever else comes is refused in one way only."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastworker import protocol, session
from fastworker.lifecycle import State
from fastworker.limits import RateLimit, TaskLimits
from fastworker.protocol import (
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    PROTOCOL_VERSION,
    Accepted,
    Answer,
    Asked,
    Cancel,
    Challenge,
    Change,
    Changes,
    Control,
    Credit,
    Duplicates,
    Ended,
    Frame,
    FromControlPlane,
    FromPeer,
    Goodbye,
    Handback,
    Heartbeat,
    Hello,
    MalformedFrame,
    Message,
    Note,
    Notes,
    Order,
    Outcome,
    Outcomes,
    Proof,
    Query,
    Recorded,
    RefusalCode,
    Refused,
    Requeue,
    Results,
    Run,
    Schedule,
    Schedules,
    Stop,
    Submission,
    Submit,
    Token,
    Watch,
    Welcome,
    decode,
    encode,
)
from fastworker.schedule import Timing
from fastworker.search import TaskFilter
from fastworker.tasks import DEFAULTS, Backoff, Definition, ErrorInfo, Options, Priority, Ties

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"

OPTIONS = Options(
    Priority.HIGH, "mail", 3, Backoff("linear", 2.0, 9.0, False), 30.0, 5.0, 1.7e9, 60.0, 0.0, "early", ("a", "b"), 40.0
)
ERROR = ErrorInfo("builtins.ValueError", "nö", "Traceback …", "tasks.py:5 in work")
TOKEN = Token("id-1", 2)
LIMITS = TaskLimits((RateLimit(10, 1.0), RateLimit(100_000, 86_400.0)), 5)
TIES = Ties("key", "tenant", "add:1", 60.0, "replace", ("id-1", "id-2"), "run", "flow", "parent", "nightly")
FILTER = TaskFilter(
    ("w",), (State.FAILED,), ("add",), ("0190b7e2",), ("mail",), (Priority.LOW,), "host:1", ("t",), ("a",), ("e",),
    "builtins.ValueError", "tasks.py:5 in work", 1.7e9, 1.6e9, 2.5,
)  # fmt: skip
TIMING = Timing(60.0, "0 9 * * 1-5", "Europe/Berlin", 1.7e9, 1.8e9, 3, "all", "queue")

# For each kind one message in which everything is said, and one in which as little as possible is.
MESSAGES: list[Message] = [
    Hello(
        "worker", 1, "host:1:ab", "host", 1, "0.4.0", 8, True,
        [Definition("add", OPTIONS, {"type": "object", "default": None}, "Add.", LIMITS, TIMING)], [TOKEN],
    ),
    Hello("client", 1, "me"),
    Proof("0123456789abcdef", "ab" * 32),
    Submit(1, [Submission("id-1", "add", '{"a":1}', OPTIONS, {"traceparent": "00-…"}, True, True)], True),
    Submit(1, [Submission("id-1", "add", "[]")]),
    Watch(["id-1", "id-2"], True),
    Submit(1, [Submission("id-3", "add", "[]", ties=TIES)]),
    Watch(["id-1"]),
    Cancel(1, "id-1", True),
    Cancel(1, "id-1"),
    Requeue(1, "id-1", "[2]"),
    Requeue(1, "id-1"),
    Query(1, "list", "id-1", State.FAILED, "add", "mail", 5, 99, after="b"),
    Query(1, "stats"),
    Query(1, "search", limit=5, before=99, filter=FILTER, redact=True),
    Control(1, "pause", "mail", "add", "w"),
    Control(1, "limit", name="add", limits=LIMITS),
    Control(1, "reprioritise", task="id-1", priority=Priority.HIGH),
    Control(1, "follow", after=7),
    Control(1, "follow"),
    Control(1, "retry", filter=FILTER, by="ann"),
    Cancel(1, "id-1", by="ann"),
    Requeue(1, "id-1", by="ann"),
    Schedules(1, "add", "report", Schedule("report", "add", TIMING, "[1]", OPTIONS), "id-1"),
    Schedules(1, "pause", "report"),
    Credit(0),
    Outcomes(7, [Outcome("id-1", 2, "succeeded", 1.7e9, 0.25, "null")]),
    Outcomes(9, [Outcome("id-1", 2, "retry", 1.7e9, 0.25, after=30.0, hold=True)]),
    Outcomes(8, [Outcome("id-1", 2, "failed", 1.7e9, 0.25, None, ERROR, False, 2.5)]),
    Heartbeat([Note("id-1", 2, (0.5, "half"), ["line one", "line two"], 7, ["1"])], 52_428_800),
    Heartbeat(),
    Handback([TOKEN], True),
    Handback([]),
    Asked([TOKEN]),
    Goodbye(),
    Challenge("cd" * 32),
    Welcome("instance", "0.4.0", [TOKEN], True),
    Welcome("instance", "0.4.0"),
    Accepted([1, 2, 3]),
    Duplicates(1, {"id-1": "id-2"}),
    Recorded(7),
    Run([Order("id-1", 2, "add", "[1]", 0, 30.0, {"a": "b"}, {"id-9": "5"}, 40.0), Order("id-2", 1, "add", "[]", 3)]),
    Stop([TOKEN]),
    Results([Ended("id-1", State.FAILED, "error", None, None, ERROR), Ended("id-2", None)]),
    Results([Ended("id-1", State.SUCCEEDED, None, '"x"', True)]),
    Notes([Note("id-1", 2, None, ["a line"]), Note("id-1", 0)]),
    Answer(1, {"any": [None, {"thing": 1.5}]}),
    Answer(1),
    Changes([Change(5, "id-1", "add", State.RUNNING, 2, 1.7e9)]),
    Refused("too-large", "it is too large", 1),
    Refused("unknown-session", "who are you?"),
]  # fmt: skip

KINDS = {kind.__dataclass_fields__["kind"].default: kind for kind in get_args(Message)}
KIND_FIELDS = {(kind, "kind") for kind in KINDS.values()}
CARRIED = (
    Submission, Schedule, Timing, Order, Ties, TaskLimits, RateLimit, Token, Outcome, Note, Ended, Change, Definition,
    Options, Backoff, ErrorInfo, TaskFilter,
)  # fmt: skip


def sent(*messages: Message) -> bytes:
    return encode(Frame("session", 1, 0, list(messages)))


# ---- what we say ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    frame = Frame("abc", 3, 2, [message])
    assert decode(encode(frame)) == frame


def test_every_kind_of_message_is_tried_here() -> None:
    assert {type(message) for message in MESSAGES} == set(KINDS.values())


def test_a_frame_holds_messages_of_any_kinds_in_order() -> None:
    frame = Frame("abc", 1, 0, list(MESSAGES))
    assert decode(encode(frame)) == frame


def test_what_is_not_said_does_not_travel() -> None:
    assert json.loads(sent(Cancel(1, "id-1"))) == {
        "session": "session",
        "seq": 1,
        "ack": 0,
        "items": [{"request": 1, "task": "id-1", "kind": "cancel"}],
    }
    assert b"null" not in sent(Submit(1, [Submission("id-1", "add", "[]", DEFAULTS)]))


def test_each_kind_is_said_by_one_side_only() -> None:
    ours, theirs = set(get_args(FromPeer)), set(get_args(FromControlPlane))
    assert not ours & theirs
    assert ours | theirs == set(KINDS.values())


def test_the_largest_payload_fits_a_frame_however_much_of_it_must_be_escaped() -> None:
    """JSON in JSON: each quote and each backslash of the payload takes two bytes."""
    payload = json.dumps("\\" * (MAX_PAYLOAD_BYTES // 2 - 1))
    assert len(payload) == MAX_PAYLOAD_BYTES
    everything = {"traceparent": "x" * 10_000}
    assert len(sent(Run([Order("id-1", 1, "n" * 200, payload, 0, 1.0, everything)]))) < MAX_FRAME_BYTES
    assert len(sent(Outcomes(1, [Outcome("id-1", 1, "succeeded", 1.0, 1.0, payload)]))) < MAX_FRAME_BYTES


def test_half_a_character_is_sent_as_a_question_mark() -> None:
    frame = decode(sent(Cancel(1, "a\ud800b"), Credit(2)))
    assert frame.items == [Cancel(1, "a?b"), Credit(2)]


# ---- what comes from strangers -------------------------------------------------------------------------------

FRAME = {"session": "s", "seq": 1, "ack": 0, "items": [{"kind": "credit", "slots": 1}]}


def changed(**fields: Any) -> bytes:
    return json.dumps({**FRAME, **fields}).encode()


def test_the_frame_that_is_spoiled_below_is_a_good_one() -> None:
    assert decode(changed()) == Frame("s", 1, 0, [Credit(1)])


def limit(**limits: Any) -> dict[str, Any]:
    return {"kind": "control", "request": 1, "action": "limit", "name": "add", "limits": limits}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff\xfe",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b"5",
        b'"frame"',
        changed()[:-1],
        changed() + b"x",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        changed(seq="one"),
        changed(seq=None),
        changed(seq=1.5),
        changed(ack=[]),
        changed(session=5),
        changed(items={}),
        changed(items=[5]),
        changed(items=[{}]),
        changed(items=[{"kind": "teapot"}]),
        changed(items=[{"kind": 5}]),
        changed(items=[{"kind": {}}]),
        changed(items=[{"kind": "credit"}]),
        changed(items=[{"kind": "credit", "slots": "many"}]),
        changed(items=[{"kind": "credit", "slots": 1}, {"kind": "teapot"}]),
        changed(items=[{"kind": "hello", "role": "king", "version": 1, "name": "x"}]),
        changed(items=[{"kind": "results", "items": [{"id": "a", "state": "asleep"}]}]),
        changed(items=[{"kind": "submit", "request": 1, "tasks": [{"id": "a", "name": "b", "args": {}}]}]),
        changed(items=[{"kind": "refused", "code": "because", "message": ""}]),
        changed(items=[{"kind": "query", "request": 1, "what": "search", "filter": {"before": 1e300}}]),
        changed(items=[{"kind": "control", "request": 1, "action": "retry", "filter": {"longer": -1.0}}]),
        changed(items=[limit(rates=[{"count": 0, "period": 1.0}])]),
        changed(items=[limit(rates=[{"count": -1, "period": 1.0}])]),
        changed(items=[limit(rates=[{"count": 10**16, "period": 1.0}])]),
        changed(items=[limit(rates=[{"count": 1, "period": 0.0}])]),
        changed(items=[limit(rates=[{"count": 1, "period": -1.0}])]),
        changed(items=[limit(rates=[{"count": 1, "period": 1e12}])]),
        changed(items=[limit(rates=[{"count": 1, "period": 1.0}] * 9)]),
        changed(items=[limit(max_concurrency=0)]),
        changed(items=[limit(rates=[{"count": 1, "period": 1.0}])]).replace(b"1.0", b"NaN"),
        b'{"session":"\\ud800","seq":1,"ack":0,"items":[]}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_what_is_not_a_frame_is_malformed_and_nothing_else(body: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode(body)


def floats(kind: Any, seen: set[Any]) -> Iterator[str]:
    """The numbers of a message that may be infinite, or none."""
    if kind is float:
        yield "float"
    elif get_origin(kind) is Annotated:
        yield from () if get_args(kind)[0] is float else floats(get_args(kind)[0], seen)
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if kind not in seen:
            seen.add(kind)
            for name, held in get_type_hints(kind, include_extras=True).items():
                yield from (f"{kind.__name__}.{name}.{inner}" for inner in floats(held, seen))
    else:
        for inner in get_args(kind):
            yield from floats(inner, seen)


@pytest.mark.parametrize("kind", get_args(protocol.FromPeer), ids=lambda kind: kind.__name__)
def test_no_number_that_a_peer_sends_is_infinite(kind: type) -> None:
    """JSON has no word for it: what was stored with one could never be read again."""
    assert list(floats(kind, set())) == []


def test_limits_that_can_be_written_are_no_malformed_frame() -> None:
    rates = [{"count": 10**15, "period": 999_999 * 86_400.0}, {"count": 1, "period": 1e-3}]
    [control] = decode(changed(items=[limit(rates=rates, max_concurrency=1)])).items
    assert isinstance(control, protocol.Control)
    assert control.limits == TaskLimits((RateLimit(10**15, 86_399_913_600.0), RateLimit(1, 1e-3)), 1)


def test_an_infinite_wait_is_malformed() -> None:
    task = {"id": "a", "name": "b", "args": "[]", "options": {"backoff": {"base": 2.5}}}
    body = changed(items=[{"kind": "submit", "request": 1, "tasks": [task]}])
    decode(body)
    with pytest.raises(MalformedFrame, match="finite"):
        decode(body.replace(b"2.5", b"1e400"))


def test_an_unknown_field_of_a_newer_release_is_overlooked() -> None:
    body = changed(items=[{"kind": "credit", "slots": 1, "colour": "blue"}], later=True)
    assert decode(body) == Frame("s", 1, 0, [Credit(1)])


def test_the_complaint_names_the_place() -> None:
    with pytest.raises(MalformedFrame, match=r"^items\.0\.credit\.slots: Input should be a valid integer"):
        decode(changed(items=[{"kind": "credit", "slots": "many"}]))


@pytest.mark.parametrize(
    "item",
    [
        {"kind": "x" * 100_000},
        {
            "kind": "run",
            "items": [{"id": "a", "attempt": 1, "name": "n", "args": "", "rank": 0, "headers": {"k" * 100_000: 5}}],
        },
    ],
    ids=["kind", "key"],
)
def test_a_complaint_is_short_however_long_the_frame(item: dict[str, Any]) -> None:
    """It goes into a log and back to the sender."""
    with pytest.raises(MalformedFrame) as caught:
        decode(changed(items=[item]))
    assert len(str(caught.value)) < 500


def decode_or_refuse(body: bytes) -> Frame | None:
    try:
        return decode(body)
    except MalformedFrame:
        return None


@given(st.binary())
def test_no_bytes_at_all_do_more_than_be_refused(body: bytes) -> None:
    decode_or_refuse(body)


@given(st.sampled_from(MESSAGES), st.data())
def test_a_frame_with_wrong_bytes_is_read_or_refused(message: Message, data: st.DataObject) -> None:
    body = bytearray(sent(message))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["change", "cut", "insert"])):
            case "change":
                body[place] = data.draw(st.integers(0, 255))
            case "insert":
                body[place:place] = data.draw(st.binary(max_size=4))
            case _:
                del body[place:]
                if not body:
                    break
    frame = decode_or_refuse(bytes(body))
    if frame is not None:
        assert decode(encode(frame)) == frame


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(MESSAGES), st.data(), junk)
def test_a_frame_with_wrong_values_is_read_or_refused(message: Message, data: st.DataObject, value: Any) -> None:
    frame = json.loads(sent(message))
    inside: Any = frame
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inside[key], dict | list) or not inside[key] or data.draw(st.booleans()):
            inside[key] = value
            break
        inside = inside[key]
    decode_or_refuse(json.dumps(frame).encode())


# ---- the page for people -------------------------------------------------------------------------------------


def sections() -> dict[str, str]:
    """The page's text under each heading of the third level, by its first word."""
    parts = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {re.split(r"\s", part)[0].strip("`"): part.split("\n## ")[0] for part in parts}


def test_the_page_has_each_kind_of_message_and_each_thing_that_they_carry() -> None:
    assert set(sections()) == set(KINDS) | {thing.__name__ for thing in CARRIED}


@pytest.mark.parametrize("thing", [*KINDS.values(), *CARRIED], ids=lambda thing: thing.__name__)
def test_the_page_names_each_field_and_no_other(thing: Any) -> None:
    text = sections()[KINDS_BY_CLASS.get(thing, thing.__name__)]
    told = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert told == [field.name for field in dataclasses.fields(thing) if (thing, field.name) not in KIND_FIELDS]


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_says_who_sends_each_message(kind: str) -> None:
    sender = re.match(r"`[\w-]+` · (.*)", sections()[kind])
    assert sender is not None
    from_control_plane = KINDS[kind] in get_args(FromControlPlane)
    assert (sender[1] == "control plane") is from_control_plane
    assert sender[1] in ("control plane", "client", "worker", "client and worker")


def test_the_page_has_the_numbers_that_count() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"protocol version is **{PROTOCOL_VERSION}**" in text
    for words in (
        f"{MAX_FRAME_BYTES // 2**20} MiB",
        f"{MAX_PAYLOAD_BYTES // 2**20} MiB",
        f"{session.WINDOW} frames",
        f"{session.ACK_AFTER * 1000:g} ms",
        f"{session.RESEND_AFTER:g} s",
        f"{session.RESEND_AT_MOST_EVERY:g} s",
        f"{session.FRAME_BYTES // 1024} KiB",
        f"{session.MAX_ITEMS:,} items",
    ):
        assert words in text, words


def test_the_page_has_each_refusal() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert set(
        re.findall(r"^\| `([a-z-]+)` \| .*\|$", text.split("## Refusals")[1].split("\n## ")[0], re.MULTILINE)
    ) == set(get_args(RefusalCode))


def test_the_frame_on_the_page_is_a_frame() -> None:
    examples = re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        assert decode(example.encode()).items


KINDS_BY_CLASS = {kind: name for name, kind in KINDS.items()}


def test_the_module_holds_no_message_that_is_not_in_the_union() -> None:
    with_kind = {
        value
        for value in vars(protocol).values()
        if dataclasses.is_dataclass(value)
        and "kind" in value.__dataclass_fields__
        and value.__module__ == protocol.__name__
    }
    assert with_kind == set(KINDS.values())
