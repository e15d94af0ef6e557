"""A control plane with its dashboard, as real processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.cluster import Cluster, Program
from tests.support.waiting import until

URL = re.compile(r"FastWorker dashboard  (http://\S+)/")


class Site:
    """What tests need of it."""

    def __init__(self, cluster: Cluster, program: Program, url: str) -> None:
        self.cluster = cluster
        self.program = program
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30, headers={"authorization": "Bearer -"})

    def json(self, path: str, **params: Any) -> Any:
        """What the API says."""
        response = self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def submit(self, name: str, *args: Any, **said: Any) -> str:
        """Submit through the API; the task's id."""
        response = self.http.post("/api/v1/tasks", json={"name": name, "args": list(args), **said})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def count(self, q: str) -> int:
        """How many tasks match."""
        return int(self.json("/api/v1/facets", q=q)["total"])


def dashboard_url(program: Program) -> str:
    """The address that it printed."""

    def look() -> str | None:
        found = URL.search(program.log)
        return found[1] if found else None

    return until(look, 30, f"the address of the dashboard in {program.log}") or ""


@contextmanager
def running_site(folder: Path, *options: str, **environment: str) -> Iterator[Site]:
    """`fastworker start` with its dashboard."""
    with Cluster(folder) as cluster:
        said = {"FASTWORKER_DASHBOARD": "true", "FASTWORKER_DASHBOARD_PORT": "0"} | environment
        program = cluster.start(*options, listen=None, wait=True, **said)
        site = Site(cluster, program, dashboard_url(program))
        with site.http:
            yield site
