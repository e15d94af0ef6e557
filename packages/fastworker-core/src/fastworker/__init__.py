"""FastWorker: a task queue without a broker.

What is in `__all__` is the public face; everything else may change.
"""

from fastworker.blocking import BlockingClient
from fastworker.client import Client
from fastworker.context import CurrentTask, current_task
from fastworker.errors import (
    ConfigurationError,
    ConnectionFailed,
    DuplicateSubmission,
    EventsLost,
    FastWorkerError,
    InvalidArguments,
    NoControlPlane,
    NotSerializable,
    PayloadTooLarge,
    ResultExpired,
    ResultTimeout,
    TaskCancelled,
    TaskCrashed,
    TaskError,
    TaskExpired,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
    UnknownDependency,
    UnknownTask,
    UpstreamFailed,
)
from fastworker.function import TaskFunction, task
from fastworker.handle import TaskHandle
from fastworker.lifecycle import State
from fastworker.middleware import Middleware, add_middleware, remove_middleware
from fastworker.release import RELEASE as __version__
from fastworker.resources import on_shutdown, on_startup, resource
from fastworker.retry import Retry
from fastworker.tasks import Backoff, Priority, TaskInfo
from fastworker.upstream import UpstreamFailure
from fastworker.workflow import GroupHandle, chain, group

__all__ = [
    "Backoff",
    "BlockingClient",
    "Client",
    "ConfigurationError",
    "ConnectionFailed",
    "CurrentTask",
    "DuplicateSubmission",
    "EventsLost",
    "FastWorkerError",
    "GroupHandle",
    "InvalidArguments",
    "Middleware",
    "NoControlPlane",
    "NotSerializable",
    "PayloadTooLarge",
    "Priority",
    "ResultExpired",
    "ResultTimeout",
    "Retry",
    "State",
    "TaskCancelled",
    "TaskCrashed",
    "TaskError",
    "TaskExpired",
    "TaskFailed",
    "TaskFunction",
    "TaskHandle",
    "TaskInfo",
    "TaskNotFound",
    "TaskTimeout",
    "UnknownDependency",
    "UnknownTask",
    "UpstreamFailed",
    "UpstreamFailure",
    "__version__",
    "add_middleware",
    "chain",
    "current_task",
    "group",
    "on_shutdown",
    "on_startup",
    "remove_middleware",
    "resource",
    "task",
]
