"""Counts over time, in memory of a fixed size; the clock is in the test's hand."""

from __future__ import annotations

import json

import pytest

from fastworker.activity import bucket_end
from fastworker.lifecycle import State
from fastworker_server.durations import Durations, Histogram
from fastworker_server.flows import Flows
from fastworker_server.queue import Moved
from fastworker_server.rings import Ring, Rings
from tests.server.stage import Stage


def test_counts_are_in_the_bucket_of_their_moment() -> None:
    ring = Ring(1.0, 5)
    ring.add(100.2, [1, 0, 0, 0], queued=1, running=0)
    ring.add(100.9, [2, 1, 0, 0], queued=2, running=1)
    ring.add(103.0, [0, 0, 1, 0], queued=0, running=0)
    series = ring.series(104.5)
    assert (series.start, series.step) == (100.0, 1.0)
    assert series.submitted == [3, 0, 0, 0, 0]
    assert series.succeeded == [1, 0, 0, 0, 0]
    assert series.failed == [0, 0, 0, 1, 0]
    assert series.queued == [2, 2, 2, 0, 0]
    assert series.running == [1, 1, 1, 0, 0]


def test_what_is_older_than_the_span_is_gone() -> None:
    ring = Ring(1.0, 5)
    ring.add(100.0, [7, 7, 7, 7], queued=3, running=0)
    series = ring.series(1_000_000.0)
    assert series.submitted == [0] * 5
    assert series.queued == [3] * 5


def test_a_restart_forgets_nothing() -> None:
    before, after = Ring(1.0, 5), Ring(1.0, 5)
    before.add(100.0, [3, 2, 1, 0], queued=4, running=1)
    after.restore(json.loads(json.dumps(before.kept())))
    after.add(102.0, [1, 0, 0, 0], queued=5, running=0)
    series = after.series(102.0)
    assert series.submitted == [0, 0, 3, 0, 1]
    assert series.succeeded == [0, 0, 2, 0, 0]
    assert series.queued == [0, 0, 4, 4, 5]


def test_what_an_earlier_release_counted_in_another_way_is_left() -> None:
    ring = Ring(1.0, 5)
    ring.restore({"last": 100, "buckets": [[1, 2, 3]] * 5})
    ring.restore(Ring(1.0, 6).kept())
    assert ring.series(100.0).submitted == [0] * 5


def test_rings_follow_the_engine() -> None:
    stage, rings, durations = Stage(), Rings(), Durations()
    stage.join("w", 2)
    for number in range(3):
        stage.submit(f"{number}")
    stage.now += 4
    first, second = stage.started()
    stage.now += 2
    stage.report(first)
    stage.report(second, "failed")
    moves: list[Moved] = stage.engine.outbox
    rings.tell(moves, stage.engine.counts[State.QUEUED], stage.engine.counts[State.RUNNING])
    durations.tell(moves)
    series = rings.series(stage.now)
    assert set(series) == {"2m", "30m", "24h"}
    for one in series.values():
        assert (sum(one.submitted), sum(one.succeeded), sum(one.failed), one.queued[-1]) == (3, 1, 1, 1)
    known = durations.type("add", {}, stage.now)
    assert (known.succeeded, known.failed, sum(known.durations)) == (1, 1, 2)
    assert known.wait_p50 == pytest.approx(4, rel=0.42)
    assert known.per_second == pytest.approx(0.2)


def test_what_comes_into_a_queue_and_leaves_it_is_told_per_second() -> None:
    stage, flows = Stage(), Flows()
    stage.join("w", 2)
    for number in range(5):
        stage.submit(f"{number}")
    assert len(stage.started()) == 2
    flows.tell(stage.engine.outbox)
    assert flows.rates(stage.now) == {}, "the second is not over"
    assert flows.rates(stage.now + 1) == {"default": (0.5, 0.2)}
    assert flows.rates(stage.now + 60) == {}


@pytest.mark.parametrize("seconds", [0.0, 0.00005, 0.001, 0.5, 3.0, 60.0, 3600.0])
def test_a_quantile_is_right_to_the_nearest_bucket(seconds: float) -> None:
    histogram = Histogram()
    for _ in range(10):
        histogram.add(seconds)
    found = histogram.quantile(0.5)
    assert found is not None
    assert seconds <= found * 1.0001
    assert found <= max(seconds * 2**0.5, bucket_end(0)) * 1.0001


def test_quantiles_split_what_was_counted() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    for _ in range(90):
        histogram.add(0.01)
    for _ in range(10):
        histogram.add(10.0)
    assert (histogram.quantile(0.5) or 0) < 0.02
    assert (histogram.quantile(0.95) or 0) > 9
