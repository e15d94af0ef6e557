"""All that reads what others wrote, each as a function of bytes: only its typed errors may come out.

A text comes as Python reads words of a command and of the environment: bytes that are no UTF-8 become lone surrogates.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from pydantic import SecretStr

from fastworker.addresses import candidates, checked_places, needs_key
from fastworker.codec import Signature
from fastworker.discovery import ANSWER, NONCE_BYTES, QUERY, Answering, Search, addresses_for_others
from fastworker.errors import ConfigurationError, InvalidArguments, InvalidSearch, PayloadSealed
from fastworker.key_file import load_keys
from fastworker.keys import Key, role_keys
from fastworker.limits import parse_rate
from fastworker.protocol import Control, MalformedFrame, Message, Query, Schedule, Schedules, decode, encode
from fastworker.schedule import Timing, check_timing, describe, next_runs
from fastworker.schedule_options import make_timing
from fastworker.sealing import Sealer
from fastworker.search import TaskFilter, parse, to_text
from fastworker.settings import Settings
from tests.security.mutate import SEEDS

KEY = Key(None, b"k" * 32)
TASK = "0190b7e2-7c1d-7cc3-98c4-dc0c0c07398f"
NOW = 1_800_000_000.0
SETTINGS = Settings()


@dataclass(frozen=True)
class Target:
    """What is fuzzed, and with what it begins."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


def frame(data: bytes) -> None:
    """What was read can be written, and read again; so can what in it is to be told."""
    try:
        read = decode(data)
    except MalformedFrame:
        return
    for message in decode(encode(read)).items:
        _tell(message)


def _tell(message: Message) -> None:
    match message:
        case Query(filter=TaskFilter() as wanted) | Control(filter=TaskFilter() as wanted):
            search(to_text(wanted).encode())
        case Schedules(schedule=Schedule(timing=timing)):
            with suppress(ConfigurationError):
                check_timing(timing)
                next_runs(timing, NOW, most=3)
                assert describe(timing)


def key(data: bytes) -> None:
    """What was read says of itself what was read."""
    text = os.fsdecode(data)
    if not text:
        return
    with suppress(ConfigurationError):
        keys = load_keys(SETTINGS, SecretStr(text))
        assert keys == load_keys(SETTINGS, SecretStr(" ".join(key.text for key in keys)))
        role_keys(keys)


def url(data: bytes) -> None:
    """One address, or several."""
    text = os.fsdecode(data)
    needs_key(text)
    with suppress(ConfigurationError):
        assert checked_places(checked_places(text)) == checked_places(text)
        places = [place for place, _ in candidates(text, SETTINGS)]
        addresses_for_others(places)


def cron(data: bytes) -> None:
    """What is allowed is due some time, and can be told."""
    timing = Timing(cron=os.fsdecode(data), tz="Europe/Berlin")
    with suppress(ConfigurationError):
        check_timing(timing)
        assert next_runs(timing, NOW, most=3)
        assert describe(timing)


def moment(data: bytes) -> None:
    """A moment as text, and a time zone."""
    text, _, zone = os.fsdecode(data).partition("|")
    for word in ("start", "repeat_until"):
        with suppress(ConfigurationError):
            timing = make_timing("fuzz", **{"every": 60.0, "tz": zone or "UTC", word: text})  # type: ignore[arg-type]
            assert describe(timing)


def rate(data: bytes) -> None:
    """What is allowed is written as it can be read."""
    with suppress(ConfigurationError):
        limit = parse_rate(os.fsdecode(data))
        assert parse_rate(str(limit)) == limit


def search(data: bytes) -> None:
    """What was understood is written so that the same is understood."""
    with suppress(InvalidSearch):
        wanted = parse(os.fsdecode(data), NOW)
        assert to_text(parse(to_text(wanted), NOW)) == to_text(wanted)


def query(data: bytes) -> None:
    """A packet that somebody sends who has the key of a client, and one without it."""
    answering = Answering("office", ["tls+tcp://0.0.0.0:5555"], role_keys((KEY,)))
    for packet in (data, _signed(QUERY, data)):
        by = answering.asked_by(packet, NOW)
        assert by is None or len(answering.answer(packet, by, "10.0.0.1")) <= len(packet)


def answer(data: bytes) -> None:
    """What another holder of the key may answer."""
    looking = Search(KEY.of("client"))
    nonce = looking.query()[len(QUERY) :][:NONCE_BYTES]
    for packet in (data, _signed(ANSWER, nonce + len(data).to_bytes(2) + data[:400])):
        looking.take(packet)
        assert all(place.urls for place in looking.found)


def sealed(data: bytes) -> None:
    """What the control plane says to be an encrypted result."""
    with suppress(PayloadSealed):
        assert SEALER.open("result", TASK, os.fsdecode(data)) == "3"


def arguments(data: bytes) -> None:
    """What a client says to be arguments."""
    with suppress(UnicodeDecodeError):
        text = data.decode()
        with suppress(InvalidArguments):
            SIGNATURE.decode(text)


def _signed(kind: bytes, rest: bytes) -> bytes:
    packet = kind + rest[:476] if kind == ANSWER else (kind + rest)[:480].ljust(480, b"\0")
    return packet + hmac.digest(KEY.of("client").discovery, packet, "sha256")


def _typed(number: int, when: datetime, day: date, names: list[str], *more: UUID, **others: float) -> None: ...


SIGNATURE = Signature(_typed, "typed")
SEALER = Sealer([KEY.secret])
SEALED = SEALER.seal("result", TASK, "add", "3").encode()
QUERY_SEED = b"n" * NONCE_BYTES + KEY.of("client").identity.encode()
TIMING = {"cron": "*/5 * * * *", "tz": "Europe/Berlin", "start": 1.0, "end": 9e9, "count": 3, "misfire": "all"}
ORDERS = [
    {
        "kind": "control",
        "request": 1,
        "action": "limit",
        "name": "add",
        "limits": {"rates": [{"count": 1, "period": 1.0}]},
    },
    {
        "kind": "control",
        "request": 2,
        "action": "retry",
        "filter": {"words": ["w"], "after": 1.0, "longer": 2.0},
        "by": "me",
    },
    {
        "kind": "schedules",
        "request": 3,
        "action": "add",
        "name": "s",
        "schedule": {"name": "s", "task": "add", "timing": TIMING},
    },
]
TARGETS = {
    "frame": Target(
        frame,
        [json.dumps({"session": "s", "seq": 1, "ack": 0, "items": [seed]}).encode() for seed in (*SEEDS, *ORDERS)],
    ),
    "key": Target(
        key, [KEY.text.encode(), f"{KEY.text},{Key(None, b'o' * 32).text}".encode(), KEY.of("worker").text.encode()]
    ),
    "url": Target(url, [b"tls+tcp://a:1,b:2", b"ipc:///tmp/a,b", b"lan://office", b"[::1]:5555", b"tcp://0.0.0.0:1"]),
    "cron": Target(cron, [b"*/5 0-8,20 1 JAN,7 SUN", b"0 30 2 29 2 *", b"0 0 * * 5#2", b"0 0 L * *"]),
    "moment": Target(moment, [b"2027-01-31 09:00|Europe/Berlin", b"2027-01-31T09:00:00+02:00|", b"2027-W01|UTC"]),
    "rate": Target(rate, [b"10/s", b"100k/d", b"5/30s", b"1M/120m"]),
    "search": Target(
        search, [b'state:failed name:mail args:"order 17" took>5 timed out', b"after:2h before:2027-01-01"]
    ),
    "query": Target(query, [QUERY_SEED]),
    "answer": Target(answer, [b'{"name":"office","instance":"x","urls":["tls+tcp://10.6.6.6:5555"]}']),
    "sealed": Target(sealed, [SEALED]),
    "arguments": Target(
        arguments,
        [
            b'{"number":1,"when":"2027-01-31T09:00","day":"2027-01-31","names":["a"],"x":1.5}',
            b'[1,"2027-01-31T09:00","2027-01-31",["a"],"0190b7e2-7c1d-7cc3-98c4-dc0c0c07398f"]',
            b'{"*":[1,0,0,[]],"x":1}',
        ],
    ),
}
