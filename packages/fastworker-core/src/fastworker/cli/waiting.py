"""Waiting for a result at a terminal: whoever waits long is told why the task is not running."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from fastworker.blocking import BlockingClient
from fastworker.cli.output import announce
from fastworker.client import Client
from fastworker.errors import FastWorkerError
from fastworker.portal import wait_for

ASK_EVERY: Final = 2.0
"""Seconds without a result after which the control plane is asked why."""


def await_result(client: BlockingClient, task_id: str, timeout: float | None) -> Any:
    """The result of a task; each reason why it is not running goes to standard error once.

    Args:
        timeout: seconds to wait; the task goes on if they pass.

    Raises:
        KeyboardInterrupt: the person at the terminal waits no longer; the task goes on.
        FastWorkerError: what `Client.result` raises.
    """
    try:
        return wait_for(_telling_why(client.client, task_id, timeout))
    except KeyboardInterrupt:
        announce(f"the task goes on; to wait for it again: fastworker result {task_id}")
        raise


async def _telling_why(client: Client, task_id: str, timeout: float | None) -> Any:
    result = asyncio.ensure_future(client.result(task_id, timeout))
    told = {"running", "ended"}
    while not (await asyncio.wait([result], timeout=ASK_EVERY))[0]:
        with suppress(FastWorkerError):  # the reason is a courtesy; who waits goes on waiting without it
            why = await client.why(task_id)
            if why.code not in told:
                told.add(why.code)
                announce(f"{why.state}: {why.reason}" + (f"; {why.advice}" if why.advice else ""))
    return result.result()
