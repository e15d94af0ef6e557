"""Searches by a client, end to end."""

from __future__ import annotations

import pytest

from fastworker.errors import InvalidSearch
from fastworker.lifecycle import State
from fastworker.search import TaskFilter
from tests.support.cluster import Cluster
from tests.support.waiting import until


def test_a_client_searches_counts_and_groups(running: Cluster) -> None:
    client = running.client
    said = running.script(
        """
import asyncio
from fastworker import Client
async def main():
    async with Client() as client:
        good = await client.submit_many("add", [(n, 17) for n in range(20)])
        bad = [await client.submit("fail", ["order 4711"], tags=["blue"]) for _ in range(3)]
        for handle in good:
            await handle
        for handle in bad:
            assert (await client.wait(handle)).state == "failed"
        page = await client.search("name:add", limit=15)
        assert len(page.tasks) == 15 and page.next is not None and page.complete, page
        rest = await client.search("name:add", limit=15, before=page.next)
        assert len(rest.tasks) == 5 and rest.next is None, rest
        assert len({task.id for task in (*page.tasks, *rest.tasks)}) == 20
        assert {task.id for task in (await client.search("4711")).tasks} == {str(handle) for handle in bad}
        assert {task.id for task in (await client.search("error:4711 tag:blue")).tasks} == {str(h) for h in bad}
        facets = await client.facets()
        assert facets.states["failed"] == 3 and facets.names["add"] == 20, facets
        [group] = await client.failures()
        assert (group.name, group.type, group.count) == ("fail", "builtins.ValueError", 3), group
        assert group.message == "order 4711" and group.place, group
        handle = bad[0]
        await client.requeue(handle)
        await client.wait(handle)
        print("all found")
asyncio.run(main())
"""
    )
    assert said.out == "all found\n", said.err
    until(lambda: client.failures()[0].count == 3, what="the third failure again")
    assert [task.state for task in client.search(TaskFilter(states=(State.FAILED,))).tasks] == [State.FAILED] * 3
    assert client.facets("name:add").total == 20
    with pytest.raises(InvalidSearch, match="there is no colour:"):
        client.search("colour:blue")


def test_what_was_submitted_is_found_at_once(running: Cluster) -> None:
    running.client.pause(queue="held")
    for number in range(20):
        task_id = running.client.submit("add", [number, 1], queue="held")
        assert running.client.search("queue:held state:queued").tasks[0].id == task_id
    running.client.resume(queue="held")
