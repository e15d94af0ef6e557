"""An application of a test under a real web server, beside the control plane of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable

import httpx

from tests.support.cluster import LONGEST_START, Cluster, Program, free_port
from tests.support.waiting import until

UVICORN = "uvicorn"
HYPERCORN = "hypercorn"
GRANIAN = "granian"
_READY = {UVICORN: "Application startup complete", HYPERCORN: "Running on http", GRANIAN: "Started worker-1"}

_ADDRESS: dict[str, Callable[[int], list[str]]] = {
    UVICORN: lambda port: ["--port", str(port), "--log-level", "info"],
    HYPERCORN: lambda port: ["--bind", f"127.0.0.1:{port}"],
    GRANIAN: lambda port: ["--port", str(port), "--interface", "asgi"],
}


class WebServer:
    """A web server that serves `web.py` of the cluster's folder.

    Args:
        application: the text of `web.py`; its application is called `app`.
        options: more words for the server's command line.
    """

    def __init__(self, cluster: Cluster, application: str, *options: str, server: str = UVICORN, **env: str) -> None:
        (cluster.folder / "web.py").write_text(application)
        self.port = free_port()
        self.program = _start(cluster, server, ["web:app", *_ADDRESS[server](self.port), *options], env)
        ready = _READY[server]
        until(lambda: ready in self.program.log or not self.program.alive, LONGEST_START, "the application's start")
        assert self.program.alive, self.program.log
        self.url = f"http://127.0.0.1:{self.port}"

    def client(self, timeout: float = 30.0) -> httpx.Client:
        """An HTTP client for it."""
        return httpx.Client(base_url=self.url, timeout=timeout)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        return self.program.terminate()


def _start(cluster: Cluster, server: str, words: list[str], env: dict[str, str]) -> Program:
    if server == UVICORN and "--workers" not in words:
        return cluster.module(server, *words, **env)
    return cluster.launch(server, [sys.executable, "-m", server, *words], **env)  # it starts others, as it was started
