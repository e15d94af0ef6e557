"""A client that follows all that happens: `python -m tests.security.onlooker URL`."""

from __future__ import annotations

import asyncio
import sys

from fastworker import Client


async def main(url: str) -> None:
    """Read as long as we live."""
    async with Client(url) as client:
        print("following", flush=True)
        async for _ in client.events():
            pass


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
