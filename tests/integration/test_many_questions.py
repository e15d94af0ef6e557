"""More answers at once than a session's window holds."""

from __future__ import annotations

import asyncio
import time

from fastworker import Client
from fastworker.session import WINDOW
from tests.support.cluster import Cluster
from tests.support.waiting import Promised


async def test_all_questions_are_answered_though_they_overflow_the_window(running: Cluster) -> None:
    async with Client(running.url) as client:
        handles = await client.submit_many("add", [(number, number) for number in range(5 * WINDOW)])
        await asyncio.gather(*handles)
        async with asyncio.timeout(20):
            infos = await asyncio.gather(*(handle.info() for handle in handles))
    assert [info.id for info in infos] == handles


async def test_ten_thousand_questions_at_once_are_answered_and_others_do_not_wait_for_them(
    running: Cluster, promised: Promised
) -> None:
    async with Client(running.url) as client, Client(running.url) as other:
        handle = await client.delay("add", 1, 1)
        await handle
        asking = asyncio.gather(*(client.info(handle) for _ in range(10_000)))
        slowest, answered = 0.0, 0
        while not asking.done():
            asked = time.monotonic()
            await other.info(handle)
            slowest, answered = max(slowest, time.monotonic() - asked), answered + 1
        assert {info.id for info in await asking} == {handle}
        refused = (await other.stats()).refused
    assert refused["too-many-requests"] >= 1
    assert answered >= 3, "in between"
    assert slowest < promised(1.0)
