"""`BackgroundTasks`: FastAPI's, but what was added is in the queue before the response, so no restart loses it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import repeat
from typing import Annotated, Any, Final

from fastapi import Depends
from starlette.requests import HTTPConnection

from fastworker.client import Client
from fastworker.errors import ConfigurationError
from fastworker.function import TaskFunction
from fastworker.protocol import Submission

BEFORE_RESPONSE_KEY: Final = "fastworker.before_response"
"""Under this key a request's scope holds what is to be queued before its response."""


class BeforeResponse:
    """What a handler wants to have queued when its response goes out: all of it in one request, or none and 503."""

    def __init__(self) -> None:
        self._submissions: list[Submission] = []

    def add_task[**P](self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> str:
        """Queue a task with the response; returns its id.

        Raises:
            InvalidArguments: the arguments don't fit the signature.
            ConfigurationError: it is not a task function.
        """
        if not isinstance(function, TaskFunction):
            raise ConfigurationError(f"{function!r} would be lost at a restart: make it a task function with @task")
        submission = function.submission(args, kwargs)
        self._submissions.append(submission)
        return submission.id

    def forget(self) -> None:
        """The handler failed: as with FastAPI's, nothing is done."""
        self._submissions.clear()

    async def submit(self, client: Client) -> None:
        """Queue all that was added."""
        submissions, self._submissions = self._submissions, []
        if submissions:
            await client.submit_functions(repeat(None), submissions)


async def background_tasks(connection: HTTPConnection) -> AsyncIterator[BeforeResponse]:
    """What `BackgroundTasks` depends on.

    Raises:
        ConfigurationError: the application has no `FastWorkerMiddleware`, or its lifespan does not run.
    """
    tasks = connection.scope.get(BEFORE_RESPONSE_KEY)
    if not isinstance(tasks, BeforeResponse):
        raise ConfigurationError(
            "BackgroundTasks needs app.add_middleware(FastWorkerMiddleware), and that the lifespan runs"
        )
    try:
        yield tasks
    except BaseException:
        tasks.forget()
        raise


BackgroundTasks = Annotated[BeforeResponse, Depends(background_tasks)]
