"""More answers at once than a session's window holds."""

from __future__ import annotations

import asyncio

from fastworker import Client
from fastworker.session import WINDOW
from tests.support.cluster import Cluster


async def test_all_questions_are_answered_though_they_overflow_the_window(running: Cluster) -> None:
    async with Client(running.url) as client:
        handles = await client.submit_many("add", [(number, number) for number in range(5 * WINDOW)])
        await asyncio.gather(*handles)
        async with asyncio.timeout(20):
            infos = await asyncio.gather(*(handle.info() for handle in handles))
    assert [info.id for info in infos] == handles
