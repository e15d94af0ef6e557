"""One control plane with a dashboard for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dashboard.site import Site, running_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site
