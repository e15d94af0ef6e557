"""Metrics for Prometheus, read from the control plane when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from fastworker.activity import Activity
from fastworker.views import Stats, WorkerView


class _Snapshot(Collector):
    def __init__(self, stats: Stats, activity: Activity, workers: Iterable[WorkerView]) -> None:
        self._stats = stats
        self._activity = activity
        self._workers = list(workers)

    def collect(self) -> Iterable[Metric]:
        """All metrics."""
        tasks = GaugeMetricFamily("fastworker_tasks", "Tasks that are kept, by state.", labels=["state"])
        for state, count in self._activity.states.items():
            tasks.add_metric([state], count)
        queued = GaugeMetricFamily("fastworker_queued_tasks", "Queued tasks, by priority.", labels=["priority"])
        for priority, count in self._activity.queued.items():
            queued.add_metric([priority], count)
        ended = CounterMetricFamily(
            "fastworker_tasks_ended",
            "Tasks that succeeded or failed since the control plane started.",
            labels=["name", "state"],
        )
        for known in self._activity.types:
            ended.add_metric([known.name, "succeeded"], known.succeeded)
            ended.add_metric([known.name, "failed"], known.failed)
        refused = CounterMetricFamily(
            "fastworker_refused", "Connections and messages that were refused since the start.", labels=["reason"]
        )
        for reason, count in self._stats.refused.items():
            refused.add_metric([reason], count)
        yield from self._durations()
        oldest = self._activity.oldest
        age = 0.0 if oldest is None else self._activity.now - oldest
        busy = sum(min(worker.assigned, worker.slots) for worker in self._workers)
        yield from (
            tasks,
            queued,
            ended,
            refused,
            GaugeMetricFamily("fastworker_oldest_queued_seconds", "How long the oldest queued task waits.", age),
            GaugeMetricFamily("fastworker_workers", "Connected workers.", self._stats.workers),
            GaugeMetricFamily("fastworker_slots", "Tasks that all workers can run at once.", self._stats.slots),
            GaugeMetricFamily("fastworker_busy_slots", "Tasks that run now.", busy),
        )

    def _durations(self) -> Iterable[Metric]:
        waits = GaugeMetricFamily(
            "fastworker_wait_seconds", "How long tasks waited for their start.", labels=["name", "quantile"]
        )
        runs = GaugeMetricFamily("fastworker_run_seconds", "How long attempts ran.", labels=["name", "quantile"])
        for known in self._activity.types:
            for family, quantile, seconds in (
                (waits, "0.5", known.wait_p50),
                (waits, "0.95", known.wait_p95),
                (runs, "0.5", known.run_p50),
                (runs, "0.95", known.run_p95),
            ):
                if seconds is not None:
                    family.add_metric([known.name, quantile], seconds)
        yield from (waits, runs)


def exposition(stats: Stats, activity: Activity, workers: Iterable[WorkerView]) -> bytes:
    """The text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(stats, activity, workers))
    return generate_latest(registry)
