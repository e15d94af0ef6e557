"""Who is believed on the network: packets alone, without sockets."""

from __future__ import annotations

import random
from itertools import count

import pytest

from fastworker.discovery import (
    ANSWERS_PER_SECOND,
    LONGEST_PLACE,
    PACKET_BYTES,
    Answering,
    Search,
    addresses_for_others,
    checked_name,
    seen_from_outside,
)
from fastworker.errors import ConfigurationError
from fastworker.keys import Key, role_keys

CLUSTER = Key.new()
WORKER = CLUSTER.of("worker")
LISTEN = ("tls+tcp://0.0.0.0:5555",)


def control_plane(name: str = "office", cluster: Key = CLUSTER) -> Answering:
    return Answering(name, LISTEN, role_keys((cluster,)))


def ask(answering: Answering, query: bytes, now: float = 0.0) -> bytes | None:
    key = answering.asked_by(query, now)
    return None if key is None else answering.answer(query, key, "10.0.0.1")


@pytest.mark.parametrize("role", ["client", "worker", "admin"])
def test_whoever_holds_a_key_is_told_where_the_control_plane_is(role: str) -> None:
    search = Search(CLUSTER.of(role))  # type: ignore[arg-type]
    answer = ask(control_plane(), search.query())
    assert answer is not None
    assert search.take(answer)
    [place] = search.found
    assert (place.name, place.urls) == ("office", ("tls+tcp://10.0.0.1:5555",))


def test_whoever_holds_none_is_not_answered() -> None:
    assert ask(control_plane(), Search(Key.new().of("worker")).query()) is None


def test_an_answer_is_never_longer_than_what_asks_for_it() -> None:
    """So nobody can be flooded through us: not with the longest name, nor with many addresses."""
    many = tuple(f"tls+tcp://a-rather-long-name-{n}.of-a-host.example:5555" for n in range(50))
    query = Search(WORKER).query()
    answer = ask(Answering("n" * 63, many, role_keys((CLUSTER,))), query)
    assert answer is not None
    assert len(answer) <= len(query) == PACKET_BYTES
    assert len(answer) > PACKET_BYTES - LONGEST_PLACE


def test_not_one_changed_byte_is_believed() -> None:
    search = Search(WORKER)
    query = search.query()
    answer = ask(control_plane(), query)
    assert answer is not None
    answering = control_plane()
    for position in range(len(query)):
        assert ask(answering, _with_another_byte(query, position)) is None
    for position in range(len(answer)):
        assert not search.take(_with_another_byte(answer, position))
    for length in range(len(answer)):
        assert not search.take(answer[:length])
    assert not search.take(answer + b"\0")
    assert search.found == []
    assert answering.answered == 0


def test_a_recorded_answer_is_worth_nothing() -> None:
    victim = Search(WORKER)
    recorded = ask(control_plane(), victim.query())
    assert recorded is not None
    later = Search(WORKER)
    later.query()
    assert not any(later.take(recorded) for _ in range(1000))
    assert later.found == []


def test_a_recorded_query_is_answered_once_and_takes_nothing_from_others() -> None:
    answering = control_plane()
    recorded = Search(WORKER).query()
    assert [ask(answering, recorded) is not None for _ in range(1000)].count(True) == 1
    assert ask(answering, Search(WORKER).query()) is not None


def test_an_answer_for_another_role_is_not_believed() -> None:
    """A machine that has only a client's key can't send workers anywhere."""
    search = Search(WORKER)
    query = search.query()
    forged = control_plane().answer(query, CLUSTER.of("client").discovery, "10.6.6.6")
    assert not search.take(forged)


def test_only_the_named_one_counts() -> None:
    search = Search(WORKER, "office")
    for name in ("lab", "office"):
        answer = ask(control_plane(name), search.query())
        assert answer is not None
        search.take(answer)
    assert [place.name for place in search.found] == ["office"]


def test_one_that_answers_on_two_networks_is_one() -> None:
    answering, search = control_plane(), Search(WORKER)
    for host in ("10.0.0.1", "10.1.0.1"):
        query = search.query()
        key = answering.asked_by(query, 0.0)
        assert key is not None
        search.take(answering.answer(query, key, host))
    [place] = search.found
    assert place.urls == ("tls+tcp://10.0.0.1:5555", "tls+tcp://10.1.0.1:5555")


def test_so_many_answers_a_second_and_no_more() -> None:
    answering = control_plane()
    now = 100.0
    answered = [ask(answering, Search(WORKER).query(), now) is not None for _ in range(10 * ANSWERS_PER_SECOND)]
    assert answered.count(True) == ANSWERS_PER_SECOND
    assert ask(answering, Search(WORKER).query(), now + 0.1) is not None


def test_a_rotated_key_is_answered_until_it_is_retired() -> None:
    new = Key.new()
    answering = Answering("office", LISTEN, role_keys((new, CLUSTER)))
    assert ask(answering, Search(WORKER).query()) is not None
    answering.accept(role_keys((new,)))
    assert ask(answering, Search(WORKER).query()) is None
    assert ask(answering, Search(new.of("worker")).query()) is not None


def test_rogues_and_noise_lead_nobody_astray() -> None:
    """100,000 packets of whoever has no key, made from what he has seen: not one is believed, or answered."""
    noise, numbers = random.Random(7), count()
    search, answering, rogue = Search(WORKER), control_plane(), control_plane("rogue", Key.new())
    query = search.query()
    seen = ask(control_plane(), Search(WORKER).query())
    assert seen is not None
    for _ in range(25_000):
        next(numbers)
        spoilt = _with_another_byte(noise.choice((query, seen)), noise.randrange(PACKET_BYTES // 2))
        answer = rogue.answer(query, noise.randbytes(32), "10.6.6.6")
        for packet in (noise.randbytes(noise.randrange(PACKET_BYTES + 1)), spoilt, answer, seen):
            assert not search.take(packet)
            assert answering.asked_by(packet, float(next(numbers))) is None
    assert search.found == []


@pytest.mark.parametrize("name", ["", "a b", "ä", "n" * 64, "a,b", "a/b", "a\n"])
def test_a_name_that_nobody_could_write_in_an_address(name: str) -> None:
    with pytest.raises(ConfigurationError, match="can't be a name on the network"):
        checked_name(name)


def test_only_what_another_machine_can_dial_is_told() -> None:
    listen = ["ipc:///tmp/a", "tls+tcp://127.0.0.1:1", "tls+tcp://[::1]:1", "tls+tcp://localhost:1", "tcp://10.0.0.1:1"]
    assert addresses_for_others(listen) == []
    assert addresses_for_others(["tls+tcp://0.0.0.0:1", "tls+tcp://queue.example:2"]) == [
        "tls+tcp://0.0.0.0:1",
        "tls+tcp://queue.example:2",
    ]
    assert seen_from_outside("tls+tcp://queue.example:2", "10.0.0.1") == "tls+tcp://queue.example:2"


def _with_another_byte(packet: bytes, position: int) -> bytes:
    position %= len(packet)
    return packet[:position] + bytes([packet[position] ^ 0xFF]) + packet[position + 1 :]
