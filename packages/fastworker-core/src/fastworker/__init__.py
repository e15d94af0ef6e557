"""FastWorker: a task queue without a broker.

What is in `__all__` is the public face; everything else may change.
"""

from fastworker.blocking import BlockingClient
from fastworker.client import Client
from fastworker.context import CurrentTask, current_task
from fastworker.errors import (
    ConfigurationError,
    ConnectionFailed,
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
    UnknownTask,
)
from fastworker.function import TaskFunction, task
from fastworker.handle import TaskHandle
from fastworker.lifecycle import State
from fastworker.middleware import Middleware, add_middleware, remove_middleware
from fastworker.release import RELEASE as __version__
from fastworker.retry import Retry
from fastworker.tasks import Backoff, Priority, TaskInfo

__all__ = [
    "Backoff",
    "BlockingClient",
    "Client",
    "ConfigurationError",
    "ConnectionFailed",
    "CurrentTask",
    "FastWorkerError",
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
    "UnknownTask",
    "__version__",
    "add_middleware",
    "current_task",
    "remove_middleware",
    "task",
]
