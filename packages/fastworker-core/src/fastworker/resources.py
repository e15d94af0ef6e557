"""What a process of tasks needs once and not for each task: a database pool, a model. Given to tasks by its type.

`@on_startup` functions make resources when a worker, or a process slot of it, starts; `@on_shutdown` functions end
them. A task takes one as a parameter whose default is `resource()`, or with `current_task().resources[Type]`.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, get_type_hints

from fastworker.errors import ConfigurationError, TaskDefinitionError

AnyFunction = Callable[..., Any]


class FromWorker:
    """The default of a parameter that the worker fills in."""

    def __repr__(self) -> str:
        return "resource()"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ConfigurationError(
            "this parameter is a resource of the worker: where you call the task function yourself, pass one"
        )


_FROM_WORKER: Final = FromWorker()


def resource() -> Any:
    """The default of a parameter that the worker fills in with the resource of the annotated type."""
    return _FROM_WORKER


def on_startup[F: AnyFunction](function: F) -> F:
    """Call this function, plain or async, when a process of tasks starts; what it returns is a resource.

    Its type is the annotated type of the result. It may take earlier resources as parameters, by their types.

    Raises:
        TaskDefinitionError: the type of the result is not annotated.
    """
    if "return" not in getattr(function, "__annotations__", {}):
        raise TaskDefinitionError(f"{_name(function)}: annotate what it returns: tasks get the resource by that type")
    running.add_startup(function)
    return function


def on_shutdown[F: AnyFunction](function: F) -> F:
    """Call this function, plain or async, when the process ends in order. It takes resources by their types."""
    running.add_shutdown(function)
    return function


class Resources(Mapping[type, Any]):
    """The resources of this process, by type."""

    def __init__(self) -> None:
        self._startups: dict[str, AnyFunction] = {}
        self._shutdowns: dict[str, AnyFunction] = {}
        self._values: dict[Any, Any] = {}
        self._users = 0

    # ---- what there is to do -------------------------------------------------------------------------------------

    def add_startup(self, function: AnyFunction) -> None:
        """Call it at the start. The same source again (a reload) replaces the old one."""
        self._startups[_name(function)] = function

    def add_shutdown(self, function: AnyFunction) -> None:
        """Call it at the end."""
        self._shutdowns[_name(function)] = function

    def modules(self) -> list[str]:
        """The modules in which the functions are defined."""
        return sorted({function.__module__ for function in (*self._startups.values(), *self._shutdowns.values())})

    def clear(self) -> None:
        """Forget all."""
        self.__init__()  # type: ignore[misc]

    # ---- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make all resources, in the order of their definition.

        Raises:
            ConfigurationError: one could not be made; holds its traceback.
        """
        self._users += 1
        if self._users > 1:
            return
        for name, function in self._startups.items():
            try:
                self._values[_hint(function, "return")] = await self._call(function)
            except Exception as error:
                self._users = 0
                told = "".join(traceback.format_exception(error)).rstrip()
                raise ConfigurationError(f"on_startup {name} failed, so no task is taken:\n\n{told}") from error

    async def stop(self) -> list[Exception]:
        """Call the shutdown functions, the last defined first; what they raised."""
        self._users = max(0, self._users - 1)
        if self._users:
            return []
        errors: list[Exception] = []
        for function in reversed(self._shutdowns.values()):
            try:
                await self._call(function)
            except Exception as error:
                errors.append(error)
        self._values.clear()
        return errors

    async def _call(self, function: AnyFunction) -> Any:
        names = inspect.signature(function).parameters
        value = function(**{name: self[_hint(function, name)] for name in names})
        return await value if inspect.isawaitable(value) else value

    # ---- what there is -------------------------------------------------------------------------------------------

    def __getitem__(self, kind: Any) -> Any:
        if kind in self._values:
            return self._values[kind]
        for value in self._values.values():
            if isinstance(kind, type) and isinstance(value, kind):
                return value
        there = ", ".join(getattr(known, "__name__", repr(known)) for known in self._values) or "none"
        raise ConfigurationError(
            f"there is no resource of type {getattr(kind, '__name__', kind)}; there are: {there}. "
            "Write an @on_startup function that returns one, in a module that the worker imports"
        )

    def __iter__(self) -> Iterator[type]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _name(function: AnyFunction) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _hint(function: AnyFunction, name: str) -> Any:
    hints = get_type_hints(function)
    if name not in hints:
        raise ConfigurationError(f"{_name(function)}: annotate {name!r} with the type of a resource")
    return hints[name]


running: Final = Resources()
"""Those of this process."""
