"""Mutated frames on each kind of listener, while somebody makes calls: nothing breaks, nobody waits, nothing grows.

`--full` sends fifty million; the plain run a hundred thousand, because a million takes more than a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import psutil
import pytest

from fastworker import BlockingClient
from tests.security.calls import calling
from tests.security.fort import Fort, running_fort
from tests.support.waiting import Promised, until

pytestmark = pytest.mark.integration

GROWTH = 50_000_000


@pytest.fixture(scope="module")
def fort(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fort]:
    with running_fort(tmp_path_factory.mktemp("fort")) as fort:
        yield fort


def play(fort: Fort, count: int, deadline: float) -> float:
    """Let three send so many in all; the p99 of the calls that were made meanwhile."""
    warm_up(fort)
    process = psutil.Process(fort.program.pid)
    before = process.memory_info().rss
    listeners = ((fort.url, fort.client_key.text), (fort.plain, "-"), (fort.cluster.url, "-"))
    with calling(lambda: BlockingClient(fort.url, fort.client_key.text)) as calls:
        senders = [
            fort.cluster.launch(
                f"mutants-{seed}",
                [sys.executable, "-m", "tests.security.mutate", url, key, str(count // 3), str(seed)],
            )
            for seed, (url, key) in enumerate(listeners)
        ]
        until(lambda: not any(sender.alive for sender in senders), deadline, "the end of the mutants")
    for sender in senders:
        assert sender.wait() == 0, sender.log
    assert "Traceback" not in fort.program.log
    assert fort.program.alive
    assert fort.refused()["malformed"] > count // 4
    assert process.memory_info().rss - before <= GROWTH
    fort.works()
    return calls.p99


def warm_up(fort: Fort) -> None:
    """What grows once and never again is no growth."""
    fort.cluster.execute([sys.executable, "-m", "tests.security.mutate", fort.cluster.url, "-", "3000", "99"])


def test_a_hundred_thousand_mutants_disturb_nobody(fort: Fort, promised: Promised) -> None:
    assert play(fort, 100_000, 100) < promised(0.1)


@pytest.mark.full
@pytest.mark.timeout(0)
def test_fifty_million_mutants_disturb_nobody(fort: Fort) -> None:
    assert play(fort, 50_000_000, 12 * 3600) <= 0.1
