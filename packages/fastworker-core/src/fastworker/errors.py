"""Every error that FastWorker raises, in one tree.

FastWorkerError
├── ConfigurationError            a setting, an option or a module is not usable
│   ├── TaskDefinitionError       a function can't be a task as written
│   │   └── DuplicateTask         two functions claim the same task name
│   └── ModuleImportError         a task module failed to import
├── SubmitError                   a task was not accepted; nothing was queued
│   ├── InvalidArguments          the arguments don't fit the signature (also a TypeError)
│   ├── NotSerializable           a value has no JSON form
│   ├── PayloadTooLarge           a value is larger than the limit
│   ├── UnknownTask               nobody knows the task name (only with strict=True)
│   ├── UnknownDependency         a task that it needs is not known
│   └── DuplicateSubmission       it is unique, and another one is there already
├── ScheduleError                 a schedule can't be changed as asked
│   ├── ScheduleNotFound          there is no such schedule
│   └── TooManySchedules          the control plane keeps no more
├── ConnectionFailed              the control plane can't be reached
│   ├── NoControlPlane            none was found; says what was tried
│   ├── ControlPlaneAway          a server's client has waited long enough; try again later
│   ├── AddressInUse              another process listens there
│   ├── Refused                   the control plane refused what we sent
│   │   ├── NotAllowed            the key does not give the right to that
│   │   └── ProtocolMismatch      it speaks another protocol version
│   └── ForkError                 a connection was carried through a fork
├── TaskError                     how a task ended, raised by `result()`
│   ├── TaskFailed                it raised; carries the remote traceback
│   │   ├── TaskCrashed           its process died, or its workers did too often
│   │   └── UpstreamFailed        a task that it needs did not succeed
│   ├── TaskTimeout               it ran longer than its time limit
│   ├── TaskCancelled             somebody cancelled it
│   ├── TaskExpired               it was not started before it expired
│   ├── ResultExpired             it ended, but its result is no longer kept
│   │   └── NoPartsKept           it yielded nothing, or nothing of that is kept any more
│   ├── ResultTypeError           its result does not have the annotated type
│   └── TaskNotFound              there is no such task
├── PayloadSealed                 an encrypted payload can't be opened
├── EventsLost                    changes are missing from a stream of events
├── InvalidSearch                 a search for tasks can't be understood
├── ResultTimeout                 `result(timeout=…)` ran out; the task goes on
└── StoreError                    the store can't be used
    ├── StoreInUse                another control plane has it open
    ├── StoreDamaged              the file is not a readable store
    └── StoreTooNew               a newer FastWorker wrote it
"""

from __future__ import annotations


class FastWorkerError(Exception):
    """The root of the tree."""


class ConfigurationError(FastWorkerError):
    """A setting, an option or a module is not usable."""


class TaskDefinitionError(ConfigurationError):
    """A function can't be a task as written."""


class DuplicateTask(TaskDefinitionError):
    """Two functions claim the same task name."""


class ModuleImportError(ConfigurationError):
    """A task module failed to import; `__cause__` is the module's own exception."""


class SubmitError(FastWorkerError):
    """A task was not accepted; nothing was queued."""


class InvalidArguments(SubmitError, TypeError):
    """The arguments don't fit the task function's signature."""


class NotSerializable(SubmitError, ValueError):
    """A value has no JSON form."""


class PayloadTooLarge(SubmitError, ValueError):
    """A value is larger than the limit."""


class UnknownTask(SubmitError):
    """No connected worker knows the task name (only with `strict=True`)."""


class UnknownDependency(SubmitError):
    """A task that it needs is no longer kept, of another control plane, or submitted after it."""


class DuplicateSubmission(SubmitError):
    """The task is unique, and another one is there already (only with `on_duplicate="reject"`)."""


class ScheduleError(FastWorkerError):
    """A schedule can't be changed as asked."""


class ScheduleNotFound(ScheduleError, LookupError):
    """There is no such schedule."""


class TooManySchedules(ScheduleError):
    """The control plane keeps no more schedules."""


class ConnectionFailed(FastWorkerError, ConnectionError):
    """The control plane can't be reached."""


class NoControlPlane(ConnectionFailed):
    """No control plane answered; the message lists what was tried."""


class ControlPlaneAway(ConnectionFailed):
    """The control plane did not answer in the time that a server can wait, or too many wait for it already.

    Attributes:
        retry_after: seconds after which another try makes sense.
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AddressInUse(ConnectionFailed):
    """Another process listens at the address."""


class Refused(ConnectionFailed):
    """The control plane refused what was sent.

    Attributes:
        code: the word of the protocol for the reason, e.g. `"malformed"`.
    """

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


class NotAllowed(Refused):
    """The key of this peer does not give it the right to what it asked for; see `fastworker key`."""


class ProtocolMismatch(Refused):
    """The control plane speaks another version of the protocol."""


class ForkError(ConnectionFailed):
    """A connection was opened before a fork; NNG can't be used in the child."""


class TaskError(FastWorkerError):
    """How a task ended.

    Attributes:
        task_id: the id of the task.
    """

    def __init__(self, message: str = "", task_id: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])
        self.task_id = task_id


class TaskFailed(TaskError):
    """The task raised.

    Attributes:
        error_type: the qualified name of the remote exception, e.g. `"builtins.ValueError"`.
        error_message: its text.
        remote_traceback: the traceback as the worker printed it.
    """

    def __init__(
        self,
        message: str,
        task_id: str = "",
        error_type: str = "",
        error_message: str = "",
        remote_traceback: str = "",
    ) -> None:
        super().__init__(message, task_id)
        self.error_type = error_type
        self.error_message = error_message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n\n{self.remote_traceback}" if self.remote_traceback else text


class TaskCrashed(TaskFailed):
    """The task's process died in it, or its workers died under it too often; the message names the signal."""


class UpstreamFailed(TaskFailed):
    """A task that this one needs did not succeed, so it was not run."""


class TaskTimeout(TaskError, TimeoutError):
    """The task ran longer than its time limit.

    Raised inside the task when its soft limit passes, and by `result()` afterwards.
    """


class TaskCancelled(TaskError):
    """Somebody cancelled the task."""


class TaskExpired(TaskError):
    """The task was not started before it expired."""


class ResultExpired(TaskError):
    """The task ended, but its result is no longer kept."""


class NoPartsKept(ResultExpired):
    """The task ended and yielded nothing, or nothing of that is kept any more."""


class ResultTypeError(TaskError, TypeError):
    """The task's result does not have the annotated type.

    Attributes:
        value: the result as plain JSON data.
    """

    def __init__(self, message: str, task_id: str = "", value: object = None) -> None:
        super().__init__(message, task_id)
        self.value = value


class TaskNotFound(TaskError, LookupError):
    """There is no such task."""


class PayloadSealed(FastWorkerError):
    """An encrypted payload can't be opened: the key is missing, or it was changed, swapped or not encrypted at all."""


class EventsLost(FastWorkerError):
    """Changes are missing from a stream of events: look again at what they were about."""


class ResultTimeout(FastWorkerError, TimeoutError):
    """`result(timeout=…)` ran out. The task itself goes on."""


class InvalidSearch(FastWorkerError, ValueError):
    """A search for tasks can't be understood; the message says what may stand there."""


class StoreError(FastWorkerError):
    """The store can't be used."""


class StoreInUse(StoreError):
    """Another control plane has the store open."""


class StoreDamaged(StoreError):
    """The file is not a readable store."""


class StoreTooNew(StoreError):
    """A newer FastWorker wrote the store."""
