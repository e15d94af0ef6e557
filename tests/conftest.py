"""Options that all tests share."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    # Here and not in tests/chaos: pytest reads options only from the conftest of a folder that it was started with.
    parser.addoption("--rounds", type=int, default=3, help="how many rounds each chaos test plays (default: 3)")
