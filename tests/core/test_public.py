"""The public face is a list; what is not in it may change."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import fastworker

PUBLIC = [
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


def test_the_public_face_is_this_list() -> None:
    assert sorted(fastworker.__all__) == PUBLIC


def test_every_name_of_the_list_is_there() -> None:
    assert all(hasattr(fastworker, name) for name in PUBLIC)


def public_things() -> Iterator[tuple[str, Any]]:
    for name in PUBLIC:
        thing = getattr(fastworker, name)
        if name.startswith("__"):
            continue
        yield name, thing
        if isinstance(thing, type) and thing.__module__.startswith("fastworker"):
            for member, value in vars(thing).items():
                function = getattr(value, "__func__", value)
                if not member.startswith("_") and (inspect.isfunction(function) or isinstance(value, property)):
                    yield f"{name}.{member}", value


@pytest.mark.parametrize(
    ("name", "thing"), list(public_things()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_everything_public_has_a_docstring(name: str, thing: Any) -> None:
    doc = inspect.getdoc(thing) or ""
    assert doc
    assert not doc.startswith(f"{getattr(thing, '__name__', name)}(")  # what `dataclass` makes up does not count


def test_importing_the_public_face_opens_nothing_and_starts_nothing() -> None:
    code = (
        "import os, threading, fastworker\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "sockets = [n for n in os.listdir('/proc/self/fd') if 'socket' in os.path.realpath(f'/proc/self/fd/{n}')]\n"
        "assert not sockets, sockets\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=30, check=True)


def test_core_stands_alone() -> None:
    """An application that submits needs neither the worker nor the server."""
    code = "import sys, fastworker; print([m for m in sys.modules if m.startswith('fastworker_')])"
    done = subprocess.run([sys.executable, "-c", code], timeout=30, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
