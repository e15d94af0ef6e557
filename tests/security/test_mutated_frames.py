"""Mutated frames on each kind of listener, while somebody makes calls: nothing breaks, nobody waits, nothing grows.

The plain run sends a million in all; `make mutants MUTANTS=50000000` so many to each listener.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from fastworker import BlockingClient
from tests.security.calls import calling
from tests.security.fort import Fort, running_fort
from tests.support.waiting import Promised, until

pytestmark = pytest.mark.integration

GROWTH = 50_000_000
SLOWEST = 1000
"""Frames in a second, all together."""


@pytest.fixture(scope="module")
def fort(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fort]:
    with running_fort(tmp_path_factory.mktemp("fort")) as fort:
        yield fort


@pytest.mark.timeout(0)  # so many take hours; the wait for them ends by itself
def test_mutants_on_each_kind_of_listener_disturb_nobody(
    fort: Fort, promised: Promised, pytestconfig: pytest.Config
) -> None:
    each: int = pytestconfig.getoption("--mutants")
    warm_up(fort)
    process = psutil.Process(fort.program.pid)
    before = process.memory_info().rss
    listeners = ((fort.url, fort.client_key.text), (fort.plain, "-"), (fort.cluster.url, "-"))
    began = time.monotonic()
    with calling(lambda: BlockingClient(fort.url, fort.client_key.text)) as calls:
        senders = [
            fort.cluster.launch(
                f"mutants-{seed}", [sys.executable, "-m", "tests.security.mutate", url, key, str(each), str(seed)]
            )
            for seed, (url, key) in enumerate(listeners)
        ]
        until(lambda: not any(sender.alive for sender in senders), 60 + 3 * each / SLOWEST, "the end of the mutants")
        rate = 3 * each / (time.monotonic() - began)
    growth = process.memory_info().rss - before
    print(
        f"3 x {each:,} mutants, {rate:,.0f} a second; p99 of calls {calls.p99 * 1000:.1f} ms, growth {growth:,} bytes"
    )
    for sender in senders:
        assert sender.wait() == 0, sender.log
    assert "Traceback" not in fort.program.log
    assert fort.program.alive
    assert fort.refused()["malformed"] > 2 * each
    assert growth <= GROWTH
    assert calls.p99 < promised(0.1)
    fort.works()


def warm_up(fort: Fort) -> None:
    """What grows once and never again is no growth."""
    fort.cluster.execute([sys.executable, "-m", "tests.security.mutate", fort.cluster.url, "-", "3000", "99"])
