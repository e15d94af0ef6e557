"""The search box: what is written there, what it means, and back."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastworker.errors import InvalidSearch
from fastworker.lifecycle import State
from fastworker.search import STATES, TaskFilter, parse, to_text
from fastworker.tasks import Priority

NOW = 1_800_000_000.0
AN_ID = "0190b7e2-7c1d-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("", TaskFilter()),
        ("   ", TaskFilter()),
        ("timed out", TaskFilter(words=("timed", "out"))),
        ('"timed out"', TaskFilter(words=("timed out",))),
        ("state:failed,expired", TaskFilter(states=(State.FAILED, State.EXPIRED))),
        ("state:failed state:failed", TaskFilter(states=(State.FAILED,))),
        ("STATE:Failed", TaskFilter(states=(State.FAILED,))),
        ('name:mail args:"order 17"', TaskFilter(names=("mail",), args=("order 17",))),
        (r'args:"say \"hi\" \\ now"', TaskFilter(args=('say "hi" \\ now',))),
        ("priority:low queue:a queue:b", TaskFilter(priorities=(Priority.LOW,), queues=("a", "b"))),
        ("worker:w tag:t error:e", TaskFilter(worker="w", tags=("t",), error=("e",))),
        ("type:builtins.ValueError", TaskFilter(type="builtins.ValueError")),
        ('place:"tasks.py:5 in work"', TaskFilter(place="tasks.py:5 in work")),
        ("took>5", TaskFilter(longer=5.0)),
        ("took>250ms", TaskFilter(longer=0.25)),
        ("took>2m", TaskFilter(longer=120.0)),
        ("after:2h", TaskFilter(after=NOW - 7200)),
        ("before:2027-01-15T08:00:00Z", TaskFilter(before=NOW)),
        ("before:2027-01-15", TaskFilter(before=NOW - 8 * 3600)),
        (AN_ID, TaskFilter(ids=(AN_ID,))),
        (AN_ID.upper(), TaskFilter(ids=(AN_ID,))),
        (f"id:{AN_ID[:8]}", TaskFilter(ids=(AN_ID[:8],))),
        ("https://example.com/x", TaskFilter(words=("https://example.com/x",))),
        ("ValueError: bad luck", TaskFilter(words=("ValueError:", "bad", "luck"))),
        ("12:30", TaskFilter(words=("12:30",))),
        ('"state:failed"', TaskFilter(words=("state:failed",))),
        ('"unclosed quote', TaskFilter(words=('"unclosed', "quote"))),
    ],
)
def test_what_a_search_means(text: str, means: TaskFilter) -> None:
    assert parse(text, NOW) == means
    assert parse(to_text(means), NOW) == means


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo:1", "there is no foo: in a search; there are state:"),
        ("foo:1", 'in quotes: "foo:1"'),
        ("took:5", "took>"),
        ("state>5", "there is no state>"),
        ("state:done", "there are waiting, scheduled, queued"),
        ("state:new", "does not exist"),
        ("priority:5", "there are critical, high, normal, low"),
        ("name: mail", "without a space between"),
        ("took>soon", "write seconds"),
        ("after:yesterday", "after:2h for two hours ago"),
        ("before:99999-01-01", "is not a time"),
        ("after:99999999h", "is not a time"),
        (f"after:{'9' * 400}h", "is not a time"),
        (f"took>{'9' * 400}", "is not a duration"),
        ("id:12", "first 8 characters"),
        ("x" * 2001, "at most 2000 characters"),
        (" ".join(map(str, range(60))), "at most 50 terms"),
    ],
)
def test_what_is_not_understood_is_told_with_what_may_stand_there(text: str, says: str) -> None:
    with pytest.raises(InvalidSearch) as caught:
        parse(text, NOW)
    assert says in str(caught.value)


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
SEVERAL = st.lists(WORDS, max_size=3, unique=True).map(tuple)
MOMENTS = st.none() | st.integers(0, 4_000_000_000).map(float)


@given(
    st.builds(
        TaskFilter,
        words=SEVERAL,
        states=st.lists(st.sampled_from(STATES), unique=True).map(tuple),
        names=SEVERAL,
        queues=SEVERAL,
        priorities=st.lists(st.sampled_from(list(Priority)), unique=True).map(tuple),
        worker=st.none() | WORDS,
        tags=SEVERAL,
        args=SEVERAL,
        error=SEVERAL,
        type=st.none() | WORDS,
        place=st.none() | WORDS,
        before=MOMENTS,
        after=MOMENTS,
        longer=st.none() | st.integers(0, 10**9).map(lambda ms: ms / 1000),
    )
)
def test_every_filter_can_be_written_and_read_again(wanted: TaskFilter) -> None:
    assert parse(to_text(wanted), NOW) == wanted


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidSearch):
        parse(text, NOW)
