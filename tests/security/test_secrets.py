"""Canaries in the place of keys and passwords: none of them sings in argv, logs, errors, pages, metrics or spans.

And what is not encrypted says so, in the log and on every page.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import httpx
import psutil
import pytest

from fastworker import BlockingClient, Client
from fastworker.errors import FastWorkerError
from fastworker.key_file import load_keys
from fastworker.keys import Key
from fastworker.settings import load_settings
from fastworker_dashboard.rendering import NAVIGATION
from tests.dashboard.site import Site, dashboard_url
from tests.otel.receiver import Receiver
from tests.support.cluster import Cluster, free_port
from tests.support.waiting import until

KEY = Key(None, bytes.fromhex("ca9a81" * 10 + "ca9a"))
PASSWORDS = {
    "FASTWORKER_DASHBOARD_PASSWORD": "canary-of-the-admin",
    "FASTWORKER_DASHBOARD_OPERATOR_PASSWORD": "canary-of-the-operator",
    "FASTWORKER_DASHBOARD_VIEWER_PASSWORD": "canary-of-the-viewer",
}
KEYS = [KEY, KEY.of("client"), KEY.of("worker"), KEY.of("admin")]
CANARIES = [*PASSWORDS.values(), *(secret.hex() for key in KEYS for secret in (key.secret, key.pre_shared))]


def sings(text: str | bytes) -> list[str]:
    """The canaries that can be heard in there."""
    heard = text if isinstance(text, str) else text.decode(errors="replace")
    return [canary for canary in CANARIES if canary in heard.lower()]


@pytest.fixture(scope="module")
def spans() -> Iterator[Receiver]:
    with Receiver() as spans:
        yield spans


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, spans: Receiver) -> Iterator[Site]:
    """All of it at once: TLS by a key of the environment, a plain address too, passwords, traces."""
    with Cluster(tmp_path_factory.mktemp("site")) as cluster:
        cluster.environment |= PASSWORDS | spans.variables
        cluster.environment |= {
            "FASTWORKER_KEY": KEY.text,
            "FASTWORKER_DASHBOARD": "true",
            "FASTWORKER_DASHBOARD_PORT": "0",
        }
        encrypted, plain = (f"{scheme}://127.0.0.1:{free_port()}" for scheme in ("tls+tcp", "tcp"))
        program = cluster.start(
            "--insecure", "--listen", encrypted, "--listen", plain, "--log-level", "debug", listen=cluster.url
        )
        cluster.worker("--url", encrypted, "--processes", "2", "--log-level", "debug", name="helper", wait=False)
        until(lambda: len(cluster.workers()) == 2, what="the workers")
        site = Site(cluster, program, dashboard_url(program))
        site.http = httpx.Client(base_url=site.url, timeout=30, headers={"authorization": "Bearer canary-of-the-admin"})
        with site.http, BlockingClient(encrypted, KEY.of("client").text) as client:
            client.result(client.delay("add", 1, 2), 20)
            with pytest.raises(FastWorkerError):
                client.result(client.delay("fail"), 20)
            with pytest.raises(FastWorkerError):
                client.pause(queue="default")
            yield site


@pytest.mark.integration
def test_no_canary_in_the_words_of_any_process(site: Site) -> None:
    processes = [psutil.Process(program.pid) for program in site.cluster.programs]
    words = [one.cmdline() for process in processes for one in (process, *process.children(recursive=True))]
    assert len(words) >= 5, "control plane, its worker, the dashboard, a supervisor, two workers"
    assert not sings(str(words))


@pytest.mark.integration
def test_no_canary_in_logs_and_what_commands_print(site: Site) -> None:
    for words in (["doctor"], ["doctor", "--json"], ["list"], ["pause", "--queue", "x"], ["start"], ["key", "rotate"]):
        done = site.cluster.run(*words)
        assert not sings(done.out + done.err), words
    damaged = site.cluster.run("workers", "--url", "127.0.0.1:1", FASTWORKER_KEY=f"{KEY.text}zz")
    assert damaged.code == 2
    assert not sings(damaged.out + damaged.err)
    logs = dict(site.cluster.logs())
    assert sum(map(len, logs.values())) > 1000
    assert not sings(str(logs))


@pytest.mark.integration
def test_no_canary_on_pages_in_json_and_in_metrics(site: Site) -> None:
    task = site.json("/api/v1/tasks")["tasks"][0]["id"]
    for path in (*(path for path, _ in NAVIGATION), f"/tasks/{task}", "/login", "/metrics", "/api/v1/tasks",
                 "/api/v1/stats", "/api/v1/audit", "/api/v1/openapi.json", "/nowhere"):  # fmt: skip
        response = site.http.get(path, headers={"accept": "text/html"})
        assert not sings(response.text + str(response.headers)), path


@pytest.mark.integration
def test_no_canary_in_spans(site: Site, spans: Receiver) -> None:
    until(lambda: spans.spans and spans.metrics, 20, "spans and metrics")
    assert not sings(b"".join(spans.bodies))


def test_no_canary_in_the_repr_of_anything_that_holds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (PASSWORDS | {"FASTWORKER_KEY": KEY.text}).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    holders = [settings, settings.model_dump(), *KEYS, load_keys(settings), Client("tls+tcp://127.0.0.1:1", KEY.text)]
    assert settings.key is not None
    assert settings.key.get_secret_value() == KEY.text
    for holder in holders:
        assert not sings(f"{holder!r} {holder} {getattr(holder, '__dict__', '')}"), holder


def test_no_canary_in_tracebacks_even_with_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTWORKER_KEY", f"{KEY.of('worker').text}")
    with pytest.raises(FastWorkerError) as caught:
        load_keys(load_settings())[0].of("admin")
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert not sings(shown)


# ---- what is not encrypted says so ---------------------------------------------------------------------------


@pytest.mark.integration
def test_every_page_says_in_red_that_it_is_insecure(site: Site) -> None:
    with httpx.Client(base_url=site.url, timeout=30) as stranger:
        pages = {path: site.http.get(path, headers={"accept": "text/html"}).text for path, _ in NAVIGATION}
        pages["/login"] = stranger.get("/login", headers={"accept": "text/html"}).text
        pages["/nowhere"] = site.http.get("/nowhere", headers={"accept": "text/html"}).text
    for path, text in pages.items():
        assert '<p class="banner bad" role="alert"><strong>INSECURE:</strong>' in text, path
    assert "INSECURE: plain TCP" in site.program.log


@pytest.mark.integration
def test_who_uses_a_plain_address_is_warned(site: Site) -> None:
    plain = next(url for url in site.cluster.client.stats().listen if url.startswith("tcp://"))
    assert "INSECURE" in site.cluster.run("workers", "--url", plain).err
    assert "INSECURE" not in site.cluster.run("workers").err


@pytest.mark.integration
def test_what_was_refused_is_in_the_metrics(site: Site) -> None:
    text = site.http.get("/metrics").text
    assert 'fastworker_refused_total{reason="not-allowed"} 1.0' in text
    assert 'fastworker_refused_total{reason="handshake"} 0.0' in text
