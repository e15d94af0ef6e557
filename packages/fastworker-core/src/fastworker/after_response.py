"""Submissions that wait until a request has been answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import repeat
from typing import Any

from fastworker.codec import Signature
from fastworker.errors import ConfigurationError
from fastworker.handle import TaskClient, TaskHandle
from fastworker.protocol import Submission


class AfterResponse:
    """What the handler of one request has put off.

    Args:
        client: will submit it.
    """

    def __init__(self, client: TaskClient) -> None:
        self.client = client
        self.submissions: list[Submission] = []

    async def submit(self) -> None:
        """Queue all of it, in one request."""
        if self.submissions:
            await self.client.submit_functions(repeat(None), self.submissions)


_request: ContextVar[AfterResponse | None] = ContextVar("fastworker_after_response", default=None)


@contextmanager
def collecting(into: AfterResponse) -> Iterator[None]:
    """What is put off inside goes here."""
    token = _request.set(into)
    try:
        yield
    finally:
        _request.reset(token)


def put_off(signature: Signature, submission: Submission) -> TaskHandle[Any]:
    """Submit it after the response. Until then the task does not exist, and may never if the process dies.

    Raises:
        ConfigurationError: no request is served here.
    """
    request = _request.get()
    if request is None:
        raise ConfigurationError(
            f"{submission.name}: after_response=True works in a request of an application with FastWorkerMiddleware"
        )
    request.submissions.append(submission)
    return TaskHandle.make(submission.id, request.client, signature)
