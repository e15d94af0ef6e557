"""Two sessions over a channel that loses, repeats and reorders: every message arrives once and in order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fastworker.protocol import Credit, Stop, Token, decode
from fastworker.session import RESEND_AT_MOST_EVERY, WINDOW, Session

ENDS = st.sampled_from([0, 1])


class SessionMachine(RuleBasedStateMachine):
    """Both ends, what was said at each, and the frames on their way to each."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        first = Session()
        self.ends = (first, Session(first.id))
        self.said: tuple[list[int], list[int]] = ([], [])
        self.heard: tuple[list[int], list[int]] = ([], [])
        self.way: tuple[list[bytes], list[bytes]] = ([], [])
        self.number = 0

    @rule(end=ENDS, count=st.integers(1, 40))
    def say(self, end: int, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.ends[end].post(Credit(self.number))
            self.said[end].append(self.number)

    @rule(end=ENDS, count=st.integers(1, 40))
    def say_items(self, end: int, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.ends[end].post_item(Stop, Token("t", self.number))
            self.said[end].append(self.number)

    @rule(end=ENDS, full=st.booleans())
    def flush(self, end: int, full: bool) -> None:
        for body in self.ends[end].outgoing(self.now):
            if full:
                break
            self.way[1 - end].append(body)

    @rule(end=ENDS, data=st.data(), keep=st.booleans())
    def arrive(self, end: int, data: st.DataObject, keep: bool) -> None:
        """Any frame that is on its way arrives; it may come a second time."""
        if self.way[end]:
            index = data.draw(st.integers(0, len(self.way[end]) - 1))
            self._hear(end, self.way[end][index] if keep else self.way[end].pop(index))

    @rule(end=ENDS)
    def arrive_all(self, end: int) -> None:
        for body in self.way[end]:
            self._hear(end, body)
        self.way[end].clear()

    def _hear(self, end: int, body: bytes) -> None:
        for message in self.ends[end].receive(decode(body), self.now):
            match message:
                case Credit(slots=number):
                    self.heard[1 - end].append(number)
                case Stop(items=tokens):
                    self.heard[1 - end].extend(token.attempt for token in tokens)
                case _:
                    raise AssertionError(message)

    @rule(end=ENDS, data=st.data())
    def lose(self, end: int, data: st.DataObject) -> None:
        if self.way[end]:
            self.way[end].pop(data.draw(st.integers(0, len(self.way[end]) - 1)))

    @rule()
    def reconnect(self) -> None:
        for end in (0, 1):
            self.way[end].clear()
            self.ends[end].reconnected(self.now)

    @rule(seconds=st.sampled_from([0.001, 0.002, 0.5, 1.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for end in self.ends:
            end.tick(self.now)

    @invariant()
    def what_was_heard_is_what_was_said_first(self) -> None:
        for said, heard in zip(self.said, self.heard, strict=True):
            assert heard == said[: len(heard)]

    @invariant()
    def the_window_is_kept(self) -> None:
        assert all(len(end._unacknowledged) <= WINDOW for end in self.ends)

    def teardown(self) -> None:
        """Once nothing is lost any more, all that was said arrives, and both ends come to rest."""
        for _ in range(200):
            self.flush(0, full=False)
            self.flush(1, full=False)
            self.arrive_all(0)
            self.arrive_all(1)
            if all(end.idle for end in self.ends):
                break
            self.wait(RESEND_AT_MOST_EVERY)
        assert self.heard == self.said
        assert all(end.idle for end in self.ends)


SessionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSessionMachine = SessionMachine.TestCase
