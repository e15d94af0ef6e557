"""Sealed payloads: what is sealed for one task and one way opens there alone."""

from __future__ import annotations

import itertools
import secrets

import pytest

from fastworker.errors import ConfigurationError, PayloadSealed, TaskFailed
from fastworker.handle import result_of
from fastworker.lifecycle import State
from fastworker.protocol import Ended, Note, Order, Outcome
from fastworker.sealing import Sealer, Way, sealer
from fastworker.submission import submission_by_name
from fastworker.tasks import ErrorInfo

KEY, OLD = secrets.token_bytes(32), secrets.token_bytes(32)
CANARY = "canary-4711-ä"
WAYS: tuple[Way, ...] = ("arguments", "schedule", "result", "error", "part", "log", "progress")


@pytest.fixture
def sealing() -> Sealer:
    return Sealer([KEY])


@pytest.mark.parametrize("text", ["", "[]", CANARY, "x" * 1_000_000, '{"a": "\\u0000"}'], ids=lambda text: text[:9])
def test_what_was_sealed_opens(sealing: Sealer, text: str) -> None:
    sealed = sealing.seal("arguments", "id-1", "add.to_cart é", text)
    assert text == sealing.open("arguments", "id-1", sealed, "add.to_cart é")
    assert sealed.isascii()
    assert CANARY not in sealed
    assert sealed != sealing.seal("arguments", "id-1", "add.to_cart é", text)


def test_it_opens_for_no_other_task_name_or_way(sealing: Sealer) -> None:
    places = list(itertools.product(WAYS, ("id-1", "id-2"), ("add", "sub")))
    sealed = {place: sealing.seal(place[0], place[1], place[2], CANARY) for place in places}
    for origin, (way, task_id, name) in itertools.product(places, places):
        if origin == (way, task_id, name):
            assert sealing.open(way, task_id, sealed[origin], name) == CANARY
        else:
            with pytest.raises(PayloadSealed):
                sealing.open(way, task_id, sealed[origin], name)


def test_not_one_changed_character_opens(sealing: Sealer) -> None:
    sealed = sealing.seal("result", "id-1", "add", CANARY)
    for position in range(len(sealed)):
        for other in "A.b":
            changed = sealed[:position] + other + sealed[position + 1 :]
            if changed != sealed and not _same_bytes(changed, sealed):
                with pytest.raises(PayloadSealed):
                    sealing.open("result", "id-1", changed)
    for length in range(len(sealed)):
        with pytest.raises(PayloadSealed):
            sealing.open("result", "id-1", sealed[:length])


def test_plain_text_in_place_of_a_sealed_one_is_refused(sealing: Sealer) -> None:
    for args in ('["evil"]', '{"a": 1}', '"fw1."', '"fw1.a.b.c"', "1"):
        with pytest.raises(PayloadSealed):
            sealing.open_order(Order("id-1", 1, "add", args, 2))
    with pytest.raises(PayloadSealed, match="came in plain text"):
        sealing.open_ended(Ended("id-1", State.SUCCEEDED, result='"evil"'))


def test_a_key_is_changed_step_by_step() -> None:
    before, between, after = Sealer([OLD]), Sealer([KEY, OLD]), Sealer([KEY])
    sealed = before.seal("result", "id-1", "add", CANARY)
    assert between.open("result", "id-1", sealed) == CANARY
    with pytest.raises(PayloadSealed, match="which is not here"):
        after.open("result", "id-1", sealed)
    assert after.open("result", "id-1", between.seal("result", "id-1", "add", CANARY)) == CANARY


def test_what_a_worker_says_is_sealed_and_opens_at_the_client(sealing: Sealer) -> None:
    error = ErrorInfo("app.Broken", CANARY, f"line of {CANARY}", "app.py:3")
    outcome = sealing.seal_outcome(Outcome("id-1", 1, "failed", 0.0, 0.0, CANARY, error), "add")
    note = sealing.seal_note(Note("id-1", 1, (0.4, CANARY), [CANARY, CANARY], 0, [f'"{CANARY}"']), "add")
    assert CANARY not in repr((outcome, note))
    assert "app." not in repr((outcome, note))
    ended = sealing.open_ended(Ended("id-1", State.FAILED, result=outcome.result, error=outcome.error))
    assert (ended.result, ended.error) == (CANARY, error)
    assert note.progress is None
    opened = sealing.open_note(note)
    assert (opened.progress, opened.sealed_progress, opened.log) == ((0.4, CANARY), None, [CANARY, CANARY])
    assert sealing.open_part("id-1", note.parts[0]) == f'"{CANARY}"'


def test_results_of_other_tasks_open_where_they_belong(sealing: Sealer) -> None:
    def sealed(task: str) -> str:
        return f'"{sealing.seal("result", task, "add", "3")}"'

    args = sealing.seal_arguments("id-9", "total", '[{"$result": "id-1"}]')
    order = Order("id-9", 1, "total", args, 2, inputs={"id-1": sealed("id-1"), "id-2": ""})
    assert sealing.open_order(order).inputs == {"id-1": "3", "id-2": ""}
    for swapped in (sealed("id-2"), "4", '{"task": "id-1"}'):
        with pytest.raises(PayloadSealed):
            sealing.open_order(Order("id-9", 1, "total", args, 2, inputs={"id-1": swapped}))


def test_the_environment_turns_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTWORKER_PAYLOAD_KEYS", f"{KEY.hex()}, {OLD.hex()}")
    sealer.cache_clear()
    try:
        submission = submission_by_name("add", [CANARY], {})
        assert CANARY not in submission.args
        assert Sealer([KEY]).open("arguments", submission.id, submission.args[1:-1], "add") == f'["{CANARY}"]'
        monkeypatch.setenv("FASTWORKER_PAYLOAD_KEYS", "not a key")
        sealer.cache_clear()
        with pytest.raises(ConfigurationError, match="must be 64 hexadecimal digits") as refused:
            sealer()
        assert "not a key" not in str(refused.value)
    finally:
        sealer.cache_clear()


def test_without_keys_an_encrypted_result_is_an_error_and_no_text(sealing: Sealer) -> None:
    result = f'"{sealing.seal("result", "id-1", "add", "3")}"'
    with pytest.raises(PayloadSealed, match="set FASTWORKER_PAYLOAD_KEYS"):
        result_of(Ended("id-1", State.SUCCEEDED, result=result))
    with pytest.raises(TaskFailed):
        result_of(Ended("id-1", State.FAILED, error=ErrorInfo("encrypted", "fw1.a.b.c")))


def _same_bytes(one: str, other: str) -> bool:
    """Whether they differ only in bits of base64 that stand for nothing."""
    return one[:-1] == other[:-1]
