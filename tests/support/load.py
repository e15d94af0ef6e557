"""`python -m tests.support.load URL FIRST CLIENTS EACH`: clients that submit unique payloads and check each answer.

Prints one JSON object: payload by task id of all that was acknowledged, and the ids whose answer was right or crossed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from fastworker import Client, TaskHandle

IN_FLIGHT = 50


class LoadClient:
    """One client. Even ones submit one by one with many in flight, odd ones in batches."""

    def __init__(self, url: str, number: int, each: int) -> None:
        self.url = url
        self.number = number
        self.payloads = [f"client {number} task {n}" for n in range(each)]
        self.submitted: dict[str, str] = {}
        self.right: list[str] = []
        self.crossed: list[str] = []

    async def run(self) -> None:
        """Submit all, await all."""
        async with Client(self.url) as client:
            if self.number % 2:
                for i in range(0, len(self.payloads), IN_FLIGHT):
                    part = self.payloads[i : i + IN_FLIGHT]
                    handles = await client.submit_many("work", [(payload,) for payload in part])
                    await asyncio.gather(*map(self._check, handles, part))
            else:
                queue = iter(self.payloads)
                await asyncio.gather(*(self._one_by_one(client, queue) for _ in range(IN_FLIGHT)))

    async def _one_by_one(self, client: Client, queue: Any) -> None:
        for payload in queue:
            name = "work" if len(self.submitted) % 3 else "work_async"
            await self._check(await client.delay(name, payload), payload)

    async def _check(self, handle: TaskHandle[Any], payload: str) -> None:
        self.submitted[handle.id] = payload
        answer = await handle.result(600)
        (self.right if answer == f"done:{payload}" else self.crossed).append(handle.id)


async def main(url: str, first: int, clients: int, each: int) -> None:
    """Run the clients side by side."""
    crowd = [LoadClient(url, number, each) for number in range(first, first + clients)]
    await asyncio.gather(*(client.run() for client in crowd))
    print(
        json.dumps(
            {
                "submitted": {task: payload for client in crowd for task, payload in client.submitted.items()},
                "right": [task for client in crowd for task in client.right],
                "crossed": [task for client in crowd for task in client.crossed],
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
