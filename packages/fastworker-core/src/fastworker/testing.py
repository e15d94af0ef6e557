"""Tests of applications: the real queue in memory, with a clock that the test moves. Needs `fastworker-server`."""

try:
    from fastworker_server.testing import Moves, TaskQueue
except ImportError as error:
    raise ImportError("fastworker.testing needs the queue itself: pip install fastworker-server") from error

__all__ = ["Moves", "TaskQueue"]
