"""Every test here uses real processes, unless it says that it needs none."""

from pathlib import Path

import pytest
from fastapi import FastAPI

from fastworker.integrations.fastapi import FastWorkerMiddleware
from tests.support.cluster import Cluster


@pytest.fixture
def embedding(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """An application with a control plane in this very process, with a store and a socket of its own."""
    monkeypatch.setenv("FASTWORKER_RUNTIME_DIR", str(cluster.runtime))
    monkeypatch.setenv("FASTWORKER_STORE_PATH", str(tmp_path / "store"))
    app = FastAPI()
    app.add_middleware(FastWorkerMiddleware, embedded=True)
    return app


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/fastapi/" in item.nodeid and {"cluster", "running"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)
