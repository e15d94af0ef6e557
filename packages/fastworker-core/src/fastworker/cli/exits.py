"""The exit codes of the command line."""

from __future__ import annotations

from typing import Final

from fastworker.errors import (
    ConnectionFailed,
    FastWorkerError,
    ResultTimeout,
    ScheduleNotFound,
    TaskError,
    TaskNotFound,
    TaskTimeout,
)

TASK_FAILED: Final = 1
"""The task ended otherwise than by success."""
BAD_INPUT: Final = 2
"""Something on the command line, in a setting or in the arguments is wrong."""
NOT_FOUND: Final = 3
NO_CONTROL_PLANE: Final = 4
TIMED_OUT: Final = 5
"""The waiting ended, the task goes on."""


def exit_code_of(error: FastWorkerError) -> int:
    """The exit code for an error."""
    match error:
        case TaskNotFound() | ScheduleNotFound():
            return NOT_FOUND
        case TaskTimeout() | TaskError():
            return TASK_FAILED
        case ResultTimeout():
            return TIMED_OUT
        case ConnectionFailed():
            return NO_CONTROL_PLANE
        case _:
            return BAD_INPUT
