"""Which client a task function goes through: the one started in this event loop, else the default of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

from fastworker.handle import TaskClient
from fastworker.portal import portal

_started: WeakKeyDictionary[asyncio.AbstractEventLoop, TaskClient] = WeakKeyDictionary()


class _Default:
    """The process's default client: made at first use, lives on the background loop."""

    def __init__(self) -> None:
        self.make: Callable[[], Awaitable[TaskClient]] | None = None
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, TaskClient] = WeakKeyDictionary()
        self._starting = asyncio.Lock()

    @property
    def made(self) -> bool:
        """Whether there is one."""
        return bool(self._clients)

    async def get(self) -> TaskClient:
        """In the background loop."""
        loop = asyncio.get_running_loop()
        async with self._starting:
            client = self._clients.get(loop)
            if client is None:
                if self.make is None:
                    raise RuntimeError("no kind of client was provided")
                client = self._clients[loop] = await self.make()
                portal().close_with(self.close)
            return client

    async def close(self) -> None:
        """In the background loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()


_default = _Default()


def provide(make: Callable[[], Awaitable[TaskClient]]) -> None:
    """Say how the default client is made and started."""
    _default.make = make


def opened(client: TaskClient) -> None:
    """The client was started in the running loop."""
    _started[asyncio.get_running_loop()] = client


def started_here() -> TaskClient | None:
    """The client that task functions in the running loop go through; None if that is the default one."""
    return _started.get(asyncio.get_running_loop())


def closed(client: TaskClient) -> None:
    """It is no more."""
    for loop in [loop for loop, other in _started.items() if other is client]:
        del _started[loop]


def forget_default() -> None:
    """Disconnect the default client, if there is one: the next use makes another, with the settings of then."""
    if _default.made:
        portal().submit(_default.close()).result(10)


async def on_current_client[T](call: Callable[[TaskClient], Awaitable[T]]) -> T:
    """Run a call with the client for the running event loop.

    Raises:
        NoControlPlane: there was none yet, and no control plane was found.
    """
    here = started_here()
    return await (call(here) if here is not None else on_default_client(call))


async def on_default_client[T](call: Callable[[TaskClient], Awaitable[T]]) -> T:
    """Run a call with the default client of the process, in its event loop. Raises what `on_current_client` raises."""
    client = await asyncio.wrap_future(portal().submit(_default.get()))
    return await client.bridge(lambda: call(client))
