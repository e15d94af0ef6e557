"""One trace from an HTTP request over the submission to the run in another process, as a collector gets it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fastapi.web import WebServer
from tests.otel.receiver import Received, Receiver
from tests.support.cluster import Cluster
from tests.support.waiting import until

TASKS = """

@task
def thread_child() -> dict[str, str]:
    return current_task().headers


@task
async def async_parent() -> str:
    return await thread_child.submit()


@task
def thread_parent() -> str:
    return thread_child.submit_sync()


@task(run_in="process")
def process_parent() -> str:
    return thread_child.submit_sync()


@task(retries=1, backoff=0.01)
def fails_once() -> int:
    if current_task().attempt == 1:
        raise ValueError("no luck")
    return current_task().attempt


@task
def baggage() -> str:
    from opentelemetry import baggage, trace

    assert trace.get_current_span().get_span_context().is_valid
    return baggage.get_baggage("user") or "nobody"


@task
def ordinary() -> int:
    return 3
"""

APART = """

@task(run_in="process")
def nap_apart(seconds: float) -> None:
    time.sleep(seconds)
"""

NIGHTLY = """

@task(every=3600, count=1)
def nightly() -> None: ...
"""

WEB = """
from fastapi import FastAPI
from fastworker.integrations.fastapi import FastWorkerMiddleware
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
import tasks

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

app = FastAPI()
app.add_middleware(FastWorkerMiddleware)


@app.post("/{name}")
async def submit(name: str):
    return {"id": await getattr(tasks, name).submit()}


@app.post("/in-a-thread/{name}")
def submit_in_a_thread(name: str):
    return {"id": getattr(tasks, name).submit_sync()}


FastAPIInstrumentor.instrument_app(app)
"""


@contextmanager
def traced(folder: Path, **environment: str) -> Iterator[tuple[Cluster, Receiver]]:
    """A cluster whose every process exports to a receiver, as the environment says; no code but what users write."""
    with Receiver() as receiver, Cluster(folder) as cluster:
        cluster.environment |= receiver.variables | environment
        yield cluster, receiver


@dataclass(frozen=True)
class Shop:
    """An instrumented application, a control plane, and who receives what they export."""

    cluster: Cluster
    receiver: Receiver
    http: httpx.Client

    def post(self, path: str, **headers: str) -> str:
        """Have the application submit a task; its id."""
        task_id: str = self.http.post(path, headers=headers).json()["id"]
        return task_id

    def result(self, task_id: str) -> Any:
        """What came out of a task."""
        return self.cluster.client.result(task_id, timeout=10)

    def spans(self, task_id: str, count: int) -> list[Received]:
        """The spans of a task, in the order of their kinds: internal, producer, consumer."""
        spans = self.receiver.spans
        until(lambda: sum(span.task == task_id for span in spans) >= count, 10, f"{count} spans")
        return sorted((span for span in spans if span.task == task_id), key=lambda span: span.kind)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with traced(tmp_path_factory.mktemp("shop")) as (cluster, receiver):
        write_tasks(cluster, TASKS + NIGHTLY)
        cluster.start()
        with WebServer(cluster, WEB).client() as http:
            yield Shop(cluster, receiver, http)


def write_tasks(cluster: Cluster, text: str) -> None:
    """Add to the task functions."""
    with (cluster.folder / "tasks.py").open("a") as tasks:
        tasks.write(text)


def only(spans: list[Received]) -> Received:
    """The one span."""
    assert len(spans) == 1, spans
    return spans[0]


@pytest.mark.integration
@pytest.mark.parametrize("path", ["/async_parent", "/thread_parent", "/process_parent", "/in-a-thread/thread_parent"])
def test_one_trace_from_the_request_to_a_task_that_a_task_submitted(shop: Shop, path: str) -> None:
    """Request → submitted → executed → submitted by it → executed: each the parent of the next, in one trace.

    For a coroutine, for tasks in a thread and in a process of their own, and for a handler in a thread.
    """
    parent = shop.post(path)
    child = shop.result(parent)
    seen_inside = shop.result(child)["traceparent"]
    submitted, executed = shop.spans(parent, 2)
    submitted_child, executed_child = shop.spans(child, 2)
    until(lambda: any(span.id == submitted.parent for span in shop.receiver.spans), 10, "the request's span")
    server = only([span for span in shop.receiver.spans if span.id == submitted.parent])
    line = [server, submitted, executed, submitted_child, executed_child]
    assert {span.trace for span in line} == {server.trace}
    assert [span.parent for span in line[1:]] == [span.id for span in line[:-1]]
    assert [span.kind for span in line] == [2, 4, 5, 4, 5], "server, producer, consumer, producer, consumer"
    assert submitted.process == server.process != executed.process
    assert seen_inside.startswith(f"00-{server.trace}-{executed_child.id}-")
    assert submitted.name == f"submit {executed.attributes['messaging.destination.name']}"
    assert executed.attributes["messaging.system"] == "fastworker"
    assert executed.attributes["fastworker.task.outcome"] == "succeeded"


@pytest.mark.integration
def test_each_attempt_has_a_span_and_the_metrics_say_how_they_ended(shop: Shop) -> None:
    task_id = shop.post("/fails_once")
    assert shop.result(task_id) == 2
    retry, submitted, first, second = shop.spans(task_id, 4)
    assert [span.name.split()[0] for span in (retry, submitted, first, second)] == [
        "retry", "submit", "execute", "execute",
    ]  # fmt: skip
    assert first.parent == second.parent == retry.parent == submitted.id
    assert retry.process == shop.cluster.programs[0].pid
    assert 0 < retry.attributes["fastworker.retry.delay"] <= 0.01
    assert (first.attributes["fastworker.task.attempt"], first.failed) == (1, True)
    assert first.attributes["error.type"] == "builtins.ValueError"
    assert (second.attributes["fastworker.task.attempt"], second.failed) == (2, False)

    def outcomes() -> set[str]:
        durations = [point for point in shop.receiver.metrics if point.name == "messaging.process.duration"]
        return {point.attributes["fastworker.task.outcome"] for point in durations}

    until(lambda: outcomes() == {"failed", "succeeded"}, 10, "metrics of both attempts")
    assert {point.name for point in shop.receiver.metrics} >= {
        "messaging.client.sent.messages", "messaging.client.consumed.messages", "messaging.process.duration",
        "fastworker.queue.wait",
    }  # fmt: skip


@pytest.mark.integration
def test_a_trace_begins_where_a_schedule_fires(shop: Shop) -> None:
    run = until(lambda: shop.cluster.client.list(name="nightly", state="succeeded"), 15, "the first run")[0]
    fired, executed = shop.spans(run.id, 2)
    assert (fired.name, fired.parent, executed.parent) == ("schedule nightly", "", fired.id)
    assert (fired.kind, fired.process) == (4, shop.cluster.programs[0].pid)
    assert fired.attributes["fastworker.schedule"] == "nightly"


@pytest.mark.integration
def test_baggage_goes_along_and_the_span_is_current_in_the_task(shop: Shop) -> None:
    assert shop.result(shop.post("/baggage", baggage="user=ada")) == "ada"


@pytest.mark.integration
def test_by_setting_an_attempt_begins_a_trace_of_its_own_and_links(shop: Shop) -> None:
    worker = shop.cluster.worker(FASTWORKER_OTEL_RELATION="link")
    task_id = shop.post("/ordinary")
    assert shop.result(task_id) == 3
    worker.terminate()
    submitted, executed = shop.spans(task_id, 2)
    assert executed.trace != submitted.trace
    assert executed.links == (submitted.id,)
    assert executed.parent == ""


@pytest.mark.integration
def test_the_control_plane_says_how_full_it_is(shop: Shop) -> None:
    naps = [shop.cluster.client.submit("nap_async", [60.0], priority="high" if n == 9 else "low") for n in range(10)]

    def latest() -> dict[tuple[str, str], float]:
        """By metric and priority."""
        gauges = [point for point in shop.receiver.metrics if point.is_gauge]
        return {(point.name, point.attributes.get("fastworker.task.priority", "")): point.value for point in gauges}

    until(lambda: latest().get(("fastworker.slots.busy", "")) == 8, 15, "a look while all slots are taken")
    now = latest()
    assert (now["fastworker.workers", ""], now["fastworker.slots", ""]) == (1, 8)
    assert now["fastworker.queue.depth", "high"] + now["fastworker.queue.depth", "low"] == 2
    assert now["fastworker.queue.depth", "critical"] == 0
    for nap in naps:
        shop.cluster.client.cancel(nap)


@pytest.mark.integration
def test_nothing_is_exported_twice_or_lost_when_processes_come_and_go(tmp_path: Path) -> None:
    """Each worker is told to end in the middle of its work; what it handed back, another one runs.

    Processes of tasks are replaced after a few of them. Only the end of a process exports here.
    """
    with traced(tmp_path, OTEL_BSP_SCHEDULE_DELAY="60000") as (cluster, receiver):
        write_tasks(cluster, APART + NIGHTLY)
        control_plane = cluster.start("--processes", "0")
        ids = [cluster.client.submit("nap" if n % 2 else "nap_async", [0.03]) for n in range(300)]
        ids += [cluster.client.submit("nap_apart", [0.01], priority="high") for n in range(20)]
        for number in range(3):
            worker = cluster.worker("--concurrency", "4", "--max-tasks-per-process", "3", name=f"worker-{number}")
            cluster.await_starts(80 * (number + 1))
            if number < 2:
                worker.signal(signal.SIGTERM)
                assert worker.wait() == 0
        for task_id in ids:
            cluster.client.result(task_id, timeout=20)
        worker.terminate()
        control_plane.terminate()
        executed = [span for span in receiver.spans if span.name.startswith("execute nap")]
        succeeded = [span.task for span in executed if span.attributes["fastworker.task.outcome"] == "succeeded"]
        assert sorted(filter(None, succeeded)) == sorted(ids)
        assert len({span.id for span in receiver.spans}) == len(receiver.spans)
        assert len({span.process for span in receiver.named("execute nap_apart")}) >= 20 / 3
        assert only(receiver.named("schedule nightly")).process == control_plane.pid


@pytest.mark.integration
def test_installed_but_not_configured_it_does_nothing(running: Cluster) -> None:
    said = running.script(
        "from fastworker.middleware import active_middleware\n"
        "from tasks import add\n"
        "assert add.submit_sync(1, 2).result_sync(timeout=10) == 3\n"
        "print(active_middleware())\n"
    )
    assert said.out == "[]\n", said.err


NOWHERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("environment", "on", "said"),
    [
        ({}, False, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, "exports traces, as"),
        (NOWHERE, True, "exports traces and metrics, as"),
        (NOWHERE | {"OTEL_TRACES_EXPORTER": "none"}, True, "exports metrics"),
        (NOWHERE | {"OTEL_SDK_DISABLED": "true"}, False, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, "otlp-proto-grpc"),
    ],
)  # fmt: skip
def test_the_environment_says_what_is_exported(environment: dict[str, str], on: bool, said: str) -> None:
    program = (
        "import logging, os\n"
        "logging.basicConfig(level='INFO')\n"
        "from fastworker_otel.provider import is_configured\n"
        "print(is_configured(), flush=True)\n"
        "os._exit(0)\n"  # without an export: nobody receives it
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{on}\n"
    assert said in done.stderr
