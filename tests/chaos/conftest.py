"""The sizes of the chaos tests, and the figures that they print at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Figures = Callable[[str, str], None]

_printed: list[tuple[str, str]] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    rounds = config.getoption("--rounds")
    for item in items:
        if "/chaos/" in f"/{item.nodeid}":
            item.add_marker(pytest.mark.chaos)
            item.add_marker(
                pytest.mark.timeout(3600 + 60 * rounds if config.getoption("--full") else 180 + 30 * rounds)
            )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _printed:
        terminalreporter.section("figures")
    for story, text in _printed:
        terminalreporter.write_line(f"{story}: {text}")


@pytest.fixture
def figures() -> Figures:
    """Takes one line of figures for a story, to be printed at the end."""
    return lambda story, text: _printed.append((story, text))


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the full size was asked for."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many rounds were asked for."""
    return int(request.config.getoption("--rounds"))
