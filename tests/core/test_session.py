"""A session delivers in order and once, whatever the transport drops, repeats or reorders. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastworker.protocol import (
    MAX_FRAME_BYTES,
    Accepted,
    Answer,
    Cancel,
    Credit,
    Frame,
    Goodbye,
    Handback,
    Heartbeat,
    Message,
    Note,
    Recorded,
    Refused,
    Token,
    Watch,
    decode,
)
from fastworker.session import (
    ACK_AFTER,
    FRAME_BYTES,
    MAX_ITEMS,
    NEVER,
    RESEND_AFTER,
    RESEND_AT_MOST_EVERY,
    WINDOW,
    Session,
)


def frames(session: Session, now: float = 0.0) -> list[Frame]:
    """What the session wants to send, read."""
    return [decode(body) for body in session.outgoing(now)]


def seqs(sent: Iterable[Frame]) -> list[int]:
    return [frame.seq for frame in sent]


def pair() -> tuple[Session, Session]:
    ours = Session()
    return ours, Session(ours.id)


def deliver(sent: Iterable[Frame], to: Session, now: float = 0.0) -> list[Message]:
    return [message for frame in sent for message in to.receive(frame, now)]


# ---- sending -------------------------------------------------------------------------------------------------


def test_a_message_goes_out_arrives_and_is_acknowledged() -> None:
    ours, theirs = pair()
    ours.post(Credit(3))
    sent = frames(ours)
    assert deliver(sent, theirs) == [Credit(3)]
    assert not ours.idle
    deliver(frames(theirs, ACK_AFTER), ours)
    assert ours.idle
    assert ours.due() == NEVER


def test_nothing_to_say_sends_nothing() -> None:
    assert Session().outgoing(0.0) == []
    assert Session().due() == NEVER


def test_what_was_said_together_goes_in_one_frame() -> None:
    ours, _ = pair()
    for slots in range(5):
        ours.post(Credit(slots))
    [frame] = frames(ours)
    assert frame.items == [Credit(slots) for slots in range(5)]


def test_items_of_one_kind_join_and_keep_their_place_among_the_others() -> None:
    ours, _ = pair()
    ours.post_item(Watch, "a")
    ours.post_item(Watch, "b")
    ours.post(Credit(1))
    ours.post_item(Watch, "c")
    ours.post_item(Accepted, 1)
    ours.post_item(Accepted, 2)
    [frame] = frames(ours)
    assert frame.items == [Watch(["a", "b"]), Credit(1), Watch(["c"]), Accepted([1, 2])]


def test_an_item_never_joins_a_message_that_was_posted_whole() -> None:
    """It may say more than its items: these were started, that one was not."""
    ours, _ = pair()
    ours.post(Handback([Token("a", 1)], started=True))
    ours.post_item(Handback, Token("b", 1))
    [frame] = frames(ours)
    assert frame.items == [Handback([Token("a", 1)], started=True), Handback([Token("b", 1)])]


def test_a_batch_is_closed_when_it_has_many_items_or_many_bytes() -> None:
    ours, _ = pair()
    for n in range(MAX_ITEMS + 1):
        ours.post_item(Watch, str(n), size=1)
    ours.post_item(Accepted, 1, size=FRAME_BYTES)
    ours.post_item(Accepted, 2, size=1)
    messages = [message for frame in frames(ours) for message in frame.items]
    assert [len(m.items) for m in messages if isinstance(m, Watch | Accepted)] == [MAX_ITEMS, 1, 1, 1]


def test_a_frame_is_closed_when_its_payloads_are_large_and_one_large_payload_goes_alone() -> None:
    ours, _ = pair()
    ours.post(Credit(1), size=FRAME_BYTES - 10)
    ours.post(Credit(2), size=10)
    ours.post(Credit(3), size=10 * FRAME_BYTES)
    ours.post(Credit(4), size=1)
    assert [frame.items for frame in frames(ours)] == [[Credit(1), Credit(2)], [Credit(3)], [Credit(4)]]


def test_answers_that_do_not_fit_a_frame_together_go_one_by_one() -> None:
    ours, theirs = pair()
    answers = [Answer(n, "x" * (MAX_FRAME_BYTES // 3)) for n in range(5)]
    for answer in answers:
        ours.post(answer)
    ours.post(Credit(1))
    bodies = ours.outgoing(0.0)
    assert max(map(len, bodies)) <= MAX_FRAME_BYTES
    assert deliver(map(decode, bodies), theirs) == [*answers, Credit(1)]


def test_an_answer_that_fits_no_frame_is_refused_and_the_session_goes_on() -> None:
    """Arguments and result of one task are two payloads, and each may be as large as a payload can be."""
    ours, theirs = pair()
    ours.post(Answer(7, "x" * MAX_FRAME_BYTES))
    ours.post(Credit(1))
    refusal, credit = deliver(frames(ours), theirs)
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.request) == ("too-large", 7)
    assert refusal.message.startswith("a message of kind answer takes 16,777,")
    assert credit == Credit(1)


def test_text_that_cannot_be_encoded_does_not_break_the_session() -> None:
    """A task may log a file name with half a character in it."""
    ours, theirs = pair()
    ours.post(Heartbeat([Note("id-1", 1, (0.5, "\udc80"), ["caf\udce9", "fine"])]))
    ours.post(Credit(1))
    assert deliver(frames(ours), theirs) == [Heartbeat([Note("id-1", 1, (0.5, "?"), ["caf?", "fine"])]), Credit(1)]


# ---- the window ----------------------------------------------------------------------------------------------


def fill_window(ours: Session) -> list[Frame]:
    sent = []
    for n in range(WINDOW):
        ours.post(Credit(n))
        sent += frames(ours)
    return sent


def test_at_most_a_window_of_frames_is_under_way() -> None:
    ours, _ = pair()
    assert seqs(fill_window(ours)) == list(range(1, WINDOW + 1))
    ours.post(Credit(99))
    assert frames(ours) == []
    assert ours.backlog == 1


def test_what_waits_for_the_window_goes_out_as_one_frame_when_it_opens() -> None:
    ours, theirs = pair()
    sent = fill_window(ours)
    for n in range(100, 150):
        ours.post(Credit(n))
    deliver(sent[:1], theirs)
    deliver(frames(theirs, ACK_AFTER), ours)
    [frame] = frames(ours)
    assert (frame.seq, len(frame.items)) == (WINDOW + 1, 50)
    assert ours.backlog == 0


# ---- acknowledgements ----------------------------------------------------------------------------------------


def test_an_acknowledgement_rides_on_data() -> None:
    ours, theirs = pair()
    ours.post(Credit(1))
    deliver(frames(ours), theirs)
    theirs.post(Recorded(1))
    [frame] = frames(theirs)
    assert (frame.seq, frame.ack) == (1, 1)
    assert theirs.due() == RESEND_AFTER  # and no acknowledgement is due any more


def test_what_is_in_no_hurry_waits_for_something_to_ride_on() -> None:
    ours, _ = pair()
    ours.post_without_hurry(Recorded(1), now=0.0)
    assert not ours.in_hurry
    assert ours.due() == ACK_AFTER
    ours.post(Credit(1))
    assert ours.in_hurry
    [frame] = frames(ours)
    assert frame.items == [Recorded(1), Credit(1)]
    assert not ours.in_hurry
    ours.post(Credit(2))
    assert ours.in_hurry


def test_an_acknowledgement_goes_alone_when_nothing_came_to_ride_on() -> None:
    ours, theirs = pair()
    ours.post(Credit(1))
    deliver(frames(ours), theirs, now=5.0)
    assert theirs.due() == 5.0 + ACK_AFTER
    assert frames(theirs, 5.0) == []
    theirs.tick(5.0 + ACK_AFTER)
    [frame] = frames(theirs, 5.0 + ACK_AFTER)
    assert (frame.seq, frame.ack, frame.items) == (0, 1, [])
    assert theirs.due() == NEVER


def test_bare_acknowledgements_are_not_acknowledged() -> None:
    ours, theirs = pair()
    assert deliver([decode(theirs.bare_acknowledgement())], ours) == []
    assert ours.due() == NEVER


def test_one_acknowledgement_covers_all_before_it() -> None:
    ours, theirs = pair()
    deliver(fill_window(ours), theirs)
    [frame] = frames(theirs, ACK_AFTER)
    assert frame.ack == WINDOW
    deliver([frame], ours)
    assert ours.idle


@pytest.mark.parametrize("ack", [0, -1, 3, 10**9])
def test_an_acknowledgement_of_what_was_never_sent_means_nothing(ack: int) -> None:
    ours, _ = pair()
    for n in range(2):
        ours.post(Credit(n))
        ours.outgoing(0.0)
    ours.receive(Frame(ours.id, 0, ack, []), 0.0)
    assert not ours.idle
    ours.reconnected(0.0)
    assert seqs(frames(ours)) == [1, 2]


def test_an_acknowledgement_is_not_lost_when_only_old_frames_go_out() -> None:
    """They say what was received when they were first sent, not what is received now."""
    ours, theirs = pair()
    ours.post(Credit(1))
    ours.outgoing(0.0)
    ours.reconnected(10.0)
    theirs.post(Recorded(7))
    deliver(frames(theirs), ours, now=10.0)
    assert [(frame.seq, frame.ack) for frame in frames(ours, 10.0)] == [(1, 0)]
    assert ours.due() == 10.0 + ACK_AFTER
    deliver(frames(ours, 10.0 + ACK_AFTER), theirs)
    assert theirs.idle


# ---- loss, repetition, disorder ------------------------------------------------------------------------------


def test_a_frame_that_comes_twice_is_delivered_once_and_answered_at_once() -> None:
    ours, theirs = pair()
    ours.post(Credit(1))
    [frame] = frames(ours)
    assert deliver([frame, frame], theirs, now=3.0) == [Credit(1)]
    assert theirs.due() == 3.0


def test_what_comes_after_a_gap_is_not_delivered_and_the_gap_is_told_at_once() -> None:
    ours, theirs = pair()
    first, second, third = fill_window(ours)[:3]
    assert deliver([first, third], theirs, now=1.0) == [Credit(0)]
    [answer] = frames(theirs, 1.0)
    assert answer.ack == 1
    assert deliver([second, third], theirs) == [Credit(1), Credit(2)]


def test_what_is_not_acknowledged_is_sent_again_after_a_while_and_then_less_often() -> None:
    ours, _ = pair()
    ours.post(Credit(1))
    [first] = frames(ours, 0.0)
    now, waits = 0.0, []
    for _ in range(8):
        waits.append(ours.due() - now)
        now = ours.due()
        ours.tick(now)
        assert frames(ours, now) == [first]
    assert waits == [RESEND_AFTER, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0, 16.0]
    assert max(waits) == RESEND_AT_MOST_EVERY


def test_before_its_time_nothing_is_sent_again() -> None:
    ours, _ = pair()
    ours.post(Credit(1))
    ours.outgoing(0.0)
    ours.tick(RESEND_AFTER * 0.99)
    assert frames(ours, RESEND_AFTER * 0.99) == []


def test_progress_makes_the_wait_short_again() -> None:
    ours, theirs = pair()
    for n in range(2):
        ours.post(Credit(n))
        ours.outgoing(0.0)
    for _ in range(4):
        ours.tick(ours.due())
        ours.outgoing(0.0)
    ours.receive(Frame(ours.id, 0, 1, []), 100.0)
    assert ours.due() == 100.0 + RESEND_AFTER
    assert theirs.idle


def test_after_a_reconnect_all_that_is_unacknowledged_is_sent_again_and_nothing_else() -> None:
    ours, theirs = pair()
    sent = fill_window(ours)
    deliver(sent[:5], theirs)
    deliver(frames(theirs, ACK_AFTER), ours)
    ours.post(Credit(50))
    ours.reconnected(30.0)
    again = frames(ours, 30.0)
    assert seqs(again) == list(range(6, WINDOW + 2))
    assert deliver(again, theirs) == [Credit(n) for n in range(5, WINDOW)] + [Credit(50)]
    assert frames(ours, 30.0) == []


def test_what_is_not_numbered_is_delivered_as_it_comes() -> None:
    """Refusals of frames that belong to no session."""
    _, theirs = pair()
    frame = Frame(theirs.id, 0, 0, [Goodbye()])
    assert deliver([frame, frame], theirs) == [Goodbye(), Goodbye()]


# ---- the other end has forgotten us --------------------------------------------------------------------------


def test_a_restarted_session_begins_anew() -> None:
    ours, theirs = pair()
    deliver(fill_window(ours), theirs)
    ours.post(Credit(99))
    before = ours.id
    ours.restart()
    assert ours.id != before
    assert ours.idle
    assert ours.backlog == 0
    assert ours.due() == NEVER
    ours.post(Credit(1))
    [frame] = frames(ours)
    assert (frame.seq, frame.ack, frame.items) == (1, 0, [Credit(1)])


def test_sessions_have_names_of_their_own() -> None:
    assert len({Session().id for _ in range(100)}) == 100


# ---- any network at all --------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(1, 60), st.floats(0, 0.7), st.floats(0, 0.5))
def test_everything_arrives_in_order_and_once_over_any_network(
    seed: int, count: int, loss: float, repetition: float
) -> None:
    """Frames are lost, repeated and reordered, connections break; then the network heals, and all has arrived."""
    random = Random(seed)
    ends = pair()
    network: list[tuple[int, bytes]] = []
    got: tuple[list[Message], list[Message]] = ([], [])
    said: tuple[list[Message], list[Message]] = ([], [])
    now = 0.0

    def turn(healthy: bool) -> None:
        for index, end in enumerate(ends):
            end.tick(now)
            for body in end.outgoing(now):
                if healthy or random.random() >= loss:
                    network.append((1 - index, body))
                    if not healthy and random.random() < repetition:
                        network.append((1 - index, body))
        if not healthy:
            random.shuffle(network)
        for _ in range(len(network) if healthy else random.randint(0, len(network))):
            to, body = network.pop(0)
            got[to].extend(ends[to].receive(decode(body), now))

    for n in range(count):
        who = random.randint(0, 1)
        ends[who].post(Cancel(n, "id"))
        said[who].append(Cancel(n, "id"))
        if random.random() < 0.1:
            network.clear()
            for end in ends:
                end.reconnected(now)
        turn(healthy=False)
        now += random.choice([0.0, 0.001, 0.5])
    for _ in range(10):
        turn(healthy=True)
        now += RESEND_AT_MOST_EVERY
    assert got == (said[1], said[0])
    assert all(end.idle for end in ends)
