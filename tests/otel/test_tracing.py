"""One trace from an HTTP request over the submission to the run in another process, as a collector gets it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

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


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def traced(cluster: Cluster, receiver: Receiver) -> Cluster:
    """A cluster whose every process exports to the receiver, as the environment says; no code but what users write."""
    cluster.environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process",
    }
    with (cluster.folder / "tasks.py").open("a") as tasks:
        tasks.write(TASKS)
    return cluster


def only(spans: list[Received]) -> Received:
    """The one span."""
    assert len(spans) == 1, spans
    return spans[0]


@pytest.mark.integration
def test_one_trace_from_the_request_to_a_task_that_a_task_submitted(traced: Cluster, receiver: Receiver) -> None:
    """For a coroutine, for a task in a thread, and for a handler in a thread."""
    control_plane = traced.start()
    web = WebServer(traced, WEB)
    parents = []
    with web.client() as http:
        for path in ("/async_parent", "/thread_parent", "/in-a-thread/thread_parent"):
            parents.append(http.post(path).json()["id"])
    children = [traced.client.result(parent, timeout=10) for parent in parents]
    seen_inside = [traced.client.result(child, timeout=10)["traceparent"] for child in children]
    web.stop()
    control_plane.terminate()
    for parent, child, seen in zip(parents, children, seen_inside, strict=True):
        check_line(receiver.spans, parent, child, seen)
    assert len({span.trace for span in receiver.spans}) == 3
    assert len({span.id for span in receiver.spans}) == len(receiver.spans)


def check_line(spans: list[Received], parent: str, child: str, seen_inside: str) -> None:
    """Request → submitted → executed → submitted by it → executed: each the parent of the next, in one trace."""
    submitted, executed = sorted((span for span in spans if span.task == parent), key=lambda span: span.kind)
    submitted_child, executed_child = sorted((span for span in spans if span.task == child), key=lambda span: span.kind)
    server = only([span for span in spans if span.id == submitted.parent])
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
def test_nothing_is_exported_twice_or_lost_when_workers_come_and_go(traced: Cluster, receiver: Receiver) -> None:
    """Each worker is told to end in the middle of its work; what it handed back, another one runs."""
    traced.environment["OTEL_BSP_SCHEDULE_DELAY"] = "60000"  # so that only the end of a process exports
    control_plane = traced.start("--processes", "0")
    ids = [traced.client.submit("nap" if n % 2 else "nap_async", [0.03]) for n in range(300)]
    for number in range(3):
        worker = traced.worker("--concurrency", "4", name=f"worker-{number}")
        until(lambda n=number: traced.journal.count("start") >= 80 * (n + 1), 30, "a third of the tasks")  # type: ignore[misc]
        if number < 2:
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
    for task_id in ids:
        traced.client.result(task_id, timeout=20)
    worker.terminate()
    control_plane.terminate()
    executed = [span for span in receiver.spans if span.name.startswith("execute ")]
    succeeded = [span.task for span in executed if span.attributes["fastworker.task.outcome"] == "succeeded"]
    assert sorted(filter(None, succeeded)) == sorted(ids)
    assert len({span.id for span in receiver.spans}) == len(receiver.spans)


@pytest.mark.integration
def test_each_attempt_has_a_span_and_the_metrics_say_how_they_ended(traced: Cluster, receiver: Receiver) -> None:
    control_plane = traced.start()
    said = traced.script("from tasks import fails_once\nprint(fails_once.submit_sync().result_sync(timeout=10))\n")
    assert said.out == "2\n", said.err
    control_plane.terminate()
    first, second = receiver.named("execute fails_once")
    assert first.parent == second.parent == only(receiver.named("submit fails_once")).id
    assert (first.attributes["fastworker.task.attempt"], first.failed) == (1, True)
    assert first.attributes["error.type"] == "builtins.ValueError"
    assert (second.attributes["fastworker.task.attempt"], second.failed) == (2, False)
    names = {name for name, _ in receiver.metrics}
    assert names >= {
        "messaging.client.sent.messages", "messaging.client.consumed.messages", "messaging.process.duration",
        "fastworker.queue.wait",
    }  # fmt: skip
    outcomes = {points.get("fastworker.task.outcome") for name, points in receiver.metrics if "duration" in name}
    assert outcomes == {"failed", "succeeded"}


@pytest.mark.integration
def test_by_setting_an_attempt_begins_a_trace_of_its_own_and_links(traced: Cluster, receiver: Receiver) -> None:
    traced.environment["FASTWORKER_OTEL_RELATION"] = "link"
    control_plane = traced.start()
    said = traced.script("from tasks import add\nprint(add.submit_sync(1, 2).result_sync(timeout=10))\n")
    assert said.out == "3\n", said.err
    control_plane.terminate()
    submitted, executed = only(receiver.named("submit add")), only(receiver.named("execute add"))
    assert executed.trace != submitted.trace
    assert executed.links == (submitted.id,)
    assert executed.parent == ""


@pytest.mark.integration
def test_baggage_goes_along_and_the_span_is_current_in_the_task(traced: Cluster, receiver: Receiver) -> None:
    traced.start()
    said = traced.script(
        "from opentelemetry import baggage, context\n"
        "from tasks import baggage as task\n"
        "context.attach(baggage.set_baggage('user', 'ada'))\n"
        "print(task.submit_sync().result_sync(timeout=10))\n"
    )
    assert said.out == "ada\n", said.err


@pytest.mark.integration
def test_installed_but_not_configured_it_does_nothing(running: Cluster) -> None:
    said = running.script(
        "from fastworker.middleware import active_middleware\n"
        "from tasks import add\n"
        "assert add.submit_sync(1, 2).result_sync(timeout=10) == 3\n"
        "print(active_middleware())\n"
    )
    assert said.out == "[]\n", said.err
