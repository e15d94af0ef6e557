"""FastWorker inside Django."""

from __future__ import annotations

from typing import Any

from fastworker.current import on_current_client
from fastworker.function import TaskFunction
from fastworker.portal import wait_for

try:
    from django.db import transaction
except ModuleNotFoundError as error:
    if error.name != "django":
        raise
    raise ImportError("Django is not installed: pip install django") from None

__all__ = ["submit_on_commit"]


def submit_on_commit[**P](function: TaskFunction[P, Any, Any], *args: P.args, **kwargs: P.kwargs) -> str:
    """Submit a task when the database transaction of this place is committed, outside of one at once; returns its id.

    After a rollback there is no such task. If the queue can't be reached, the commit stands, and the error is raised
    where the transaction ends.

    Raises:
        InvalidArguments: the arguments don't fit the signature.
        NotSerializable: a value has no JSON form.
    """
    submission = function.submission(args, kwargs)

    def submit() -> None:
        _ = wait_for(on_current_client(lambda client: client.submit_function(function.signature, submission)))

    transaction.on_commit(submit)
    return submission.id
