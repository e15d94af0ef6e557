"""A client, and what becomes of its requests when the control plane is another one than before."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastworker import Client
from fastworker.protocol import Accepted, Duplicates, Submit
from tests.core.eventually import eventually
from tests.core.fake_control_plane import FakeControlPlane


async def test_what_an_earlier_control_plane_said_of_duplicates_does_not_hold_for_the_next(tmp_path: Path) -> None:
    """The task that was to stand for ours was lost with it, and the next one took ours in."""
    plane = FakeControlPlane(f"ipc://{tmp_path}/s").start()
    async with Client(plane.url) as client:
        submitting = asyncio.ensure_future(client.submit("add", [1, 2], unique_key="sum"))
        await eventually(lambda: plane.heard(Submit))
        [submit] = plane.heard(Submit)
        plane.say(Duplicates(submit.request, {submit.tasks[0].id: "another"}))
        await eventually(lambda: client._instead)
        plane.stop()
        plane.forget()
        plane.start()
        await eventually(lambda: len(plane.heard(Submit)) == 2)
        plane.say(Accepted([submit.request]))
        assert await submitting == submit.tasks[0].id
    plane.stop()
