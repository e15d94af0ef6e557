"""Every test here uses real processes, unless it says that it needs none."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/fastapi/" in item.nodeid and {"cluster", "running"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)
