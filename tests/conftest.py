"""Options and fixtures that all tests share."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.hosts import Network
from tests.support.waiting import Promised


def pytest_addoption(parser: pytest.Parser) -> None:
    # Here and not in tests/chaos: pytest reads options only from the conftest of a folder that it was started with.
    parser.addoption("--rounds", type=int, default=1, help="how many rounds each chaos test plays (default: 1)")
    parser.addoption("--full", action="store_true", help="chaos tests in full size, not in the short size of CI")
    parser.addoption(
        "--mutants", type=int, default=333_334, help="how many mutated frames each listener gets (default: 333334)"
    )
    parser.addoption(
        "--stalled-for",
        type=float,
        default=600,
        help="seconds that 10,000 connections stall with --full (default: 600)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        only_full = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=only_full)
        items[:] = [item for item in items if item not in only_full]


@pytest.fixture(scope="session")
def promised(request: pytest.FixtureRequest) -> Promised:
    """How many seconds something may take: as promised with `--full`, on a quiet machine; else only not for ever."""
    return (lambda seconds: seconds) if request.config.getoption("--full") else (lambda seconds: 20 * seconds)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A folder in which nothing runs yet."""
    with Cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with one own worker, shared by the tests of a module."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.start()
        yield cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes of a failed test printed."""
    report = yield
    fixtures: dict[str, Any] = getattr(item, "funcargs", {})
    if report.failed:
        found = [value for value in fixtures.values() if isinstance(value, Cluster)]
        found += [host for value in fixtures.values() if isinstance(value, Network) for host in value.hosts]
        for cluster in found:
            report.sections += [(f"printed by {name}", text[-6000:]) for name, text in cluster.logs()]
    return report
