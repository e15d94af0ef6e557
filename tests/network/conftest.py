"""Every test here makes hosts of its own, which takes root: `make hosts` asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import Network


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "network" in item.nodeid.split("/"):
            item.add_marker(pytest.mark.netns)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A switch with nothing plugged in."""
    with Network(tmp_path) as network:
        yield network
