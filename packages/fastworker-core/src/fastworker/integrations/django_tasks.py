"""`FastWorker`: a backend for Django's own tasks, named in the setting `TASKS`.

What `django.tasks.task` makes is a task function of FastWorker's, too, so a worker that imports it runs it.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_core import to_jsonable_python

from fastworker import Retry, task
from fastworker.context import current_task
from fastworker.current import on_current_client
from fastworker.errors import TaskNotFound
from fastworker.function import AnyTaskFunction, registry
from fastworker.handle import plain_json
from fastworker.lifecycle import State
from fastworker.portal import wait_for
from fastworker.tasks import Priority, TaskInfo

try:
    from django.tasks import Task, TaskContext, TaskResult, TaskResultStatus
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import TaskError
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.module_loading import import_string
except ModuleNotFoundError as error:
    if error.name not in ("django", "django.tasks"):
        raise
    raise ImportError("Django's tasks came with Django 6: pip install 'django>=6'") from None

_STATUS: Final = {
    State.RUNNING: TaskResultStatus.RUNNING,
    State.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    State.FAILED: TaskResultStatus.FAILED,
    State.CANCELLED: TaskResultStatus.FAILED,
    State.EXPIRED: TaskResultStatus.FAILED,
}
"""All others are ready."""


class DjangoTask(Task):  # type: ignore[misc]  # Django has no types
    """A task of Django's that FastWorker runs; its name is the path of the function."""

    __slots__ = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        known = registry.get(self.module_path)
        if known is None or inspect.unwrap(known.function) is not self.func:
            task(name=self.module_path)(_reporting(self))


class FastWorker(BaseTaskBackend):  # type: ignore[misc]
    """Submits tasks to the control plane that the process's default client finds."""

    task_class = DjangoTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def enqueue(self, task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Queue a task; returns once it is stored.

        Raises:
            InvalidTask: it is none that can be queued.
            InvalidArguments: the arguments don't fit the signature.
            ConnectionFailed: no control plane was found.
        """
        self.validate_task(task)
        result = _result(task, args=list(args), kwargs=dict(kwargs), backend=self.alias)
        function = _function_of(task).options(priority=priority_of(task.priority), queue=task.queue_name)
        if task.run_after is not None:
            function = function.options(eta=task.run_after)
        object.__setattr__(result, "id", str(function.submit_sync(*args, **kwargs)))
        object.__setattr__(result, "enqueued_at", datetime.now(UTC))
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """How a task stands.

        Raises:
            TaskResultDoesNotExist: there is no such task.
        """
        try:
            info = wait_for(on_current_client(lambda client: client.info(result_id)))
        except TaskNotFound as error:
            raise TaskResultDoesNotExist(str(error)) from None
        return _result_of(info, self.alias)


def priority_of(number: int) -> Priority:
    """Of Django's numbers from -100 to 100: above 50 critical, above 0 high, 0 normal, below low."""
    if number > 50:
        return Priority.CRITICAL
    if number > 0:
        return Priority.HIGH
    return Priority.NORMAL if number == 0 else Priority.LOW


def _function_of(task: DjangoTask) -> AnyTaskFunction:
    function = registry.get(task.module_path)
    assert function is not None, "made together with the task"
    return function


def _reporting(task: DjangoTask) -> Callable[..., Any]:
    """The function as a worker runs it: it sends Django's signals, and fills in the parameter for the context."""
    run = _reporting_coroutine(task) if inspect.iscoroutinefunction(task.func) else _reporting_function(task)
    if task.takes_context:
        signature = inspect.signature(task.func)
        run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return run


def _reporting_function(task: DjangoTask) -> Callable[..., Any]:
    @functools.wraps(task.func)
    def run(*args: Any, **kwargs: Any) -> Any:
        result = _begun(task, args, kwargs)
        task_started.send_robust(FastWorker, task_result=result)
        try:
            value = task.func(*_context(task, result), *args, **kwargs)
        except BaseException as error:
            if _note_failure(result, error):
                task_finished.send_robust(FastWorker, task_result=result)
            raise
        _note_success(result, value)
        task_finished.send_robust(FastWorker, task_result=result)
        return value

    return run


def _reporting_coroutine(task: DjangoTask) -> Callable[..., Any]:
    @functools.wraps(task.func)
    async def run(*args: Any, **kwargs: Any) -> Any:
        result = _begun(task, args, kwargs)
        await task_started.asend_robust(FastWorker, task_result=result)
        try:
            value = await task.func(*_context(task, result), *args, **kwargs)
        except BaseException as error:
            if _note_failure(result, error):
                await task_finished.asend_robust(FastWorker, task_result=result)
            raise
        _note_success(result, value)
        await task_finished.asend_robust(FastWorker, task_result=result)
        return value

    return run


def _begun(task: DjangoTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
    current, now = current_task(), datetime.now(UTC)
    return _result(
        task, id=current.id, status=TaskResultStatus.RUNNING, args=_as_json(list(args)), kwargs=_as_json(kwargs),
        backend=task.backend, worker_ids=[""] * current.attempt, started_at=now, last_attempted_at=now,
    )  # fmt: skip


def _context(task: DjangoTask, result: TaskResult) -> Sequence[TaskContext]:
    return [TaskContext(task_result=result)] if task.takes_context else []


def _note_success(result: TaskResult, value: Any) -> None:
    object.__setattr__(result, "_return_value", _as_json(value))
    _note_end(result, TaskResultStatus.SUCCESSFUL)


def _note_failure(result: TaskResult, error: BaseException) -> bool:
    """Whether it has finished by that: one that only snoozes has not."""
    if isinstance(error, Retry):
        return False
    kind = type(error)
    text = "".join(traceback.format_exception(error))
    result.errors.append(TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=text))
    _note_end(result, TaskResultStatus.FAILED)
    return True


def _note_end(result: TaskResult, status: TaskResultStatus) -> None:
    object.__setattr__(result, "finished_at", datetime.now(UTC))
    object.__setattr__(result, "status", status)


def _as_json(value: Any) -> Any:
    """As plain data: that is all that Django's results hold."""
    return to_jsonable_python(value, serialize_unknown=True)


def _result(task: DjangoTask, **said: Any) -> TaskResult:
    fields: dict[str, Any] = {
        "id": "", "status": TaskResultStatus.READY, "enqueued_at": None, "started_at": None, "finished_at": None,
        "last_attempted_at": None, "errors": [], "worker_ids": [],
    }  # fmt: skip
    return TaskResult(task=task, **{**fields, **said})


def _result_of(info: TaskInfo, alias: str) -> TaskResult:
    """What the control plane knows, in Django's words."""
    arguments = plain_json(info.args or "[]")
    first = info.history[0].started_at if info.history else info.started_at
    result = _result(
        import_string(info.name),
        id=info.id,
        status=_STATUS.get(info.state, TaskResultStatus.READY),
        enqueued_at=_moment(info.submitted_at),
        started_at=_moment(first),
        finished_at=_moment(info.finished_at),
        last_attempted_at=_moment(info.started_at),
        args=arguments if isinstance(arguments, list) else [],
        kwargs=arguments if isinstance(arguments, dict) else {},
        backend=alias,
        errors=[TaskError(exception_class_path=info.error.type, traceback=info.error.traceback)] if info.error else [],
        worker_ids=[*(attempt.worker for attempt in info.history), *([info.worker] if info.worker else [])],
    )
    if info.result is not None:
        object.__setattr__(result, "_return_value", plain_json(info.result))
    return result


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
