"""How the dashboard listens."""

from __future__ import annotations

import asyncio
import socket

from fastworker_dashboard.command import bind


async def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_headers() -> None:
    """A server of asyncio sends at once, what is small too, only if it knows that its socket speaks TCP."""
    at_once: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        at_once.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listening = bind("127.0.0.1", 0)
    async with await asyncio.start_server(answer, sock=listening):
        _, writer = await asyncio.open_connection(*listening.getsockname())
        assert await at_once
        writer.close()
        await writer.wait_closed()
