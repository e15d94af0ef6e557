"""What a client can ask of schedules, and order; and the blocking twin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Unpack

from fastworker.codec import encode_untyped
from fastworker.errors import ConfigurationError, ScheduleNotFound
from fastworker.options import check_names, make_options
from fastworker.protocol import Query, Schedule, Schedules
from fastworker.schedule_options import RunOptions, make_timing, split_options
from fastworker.sealing import sealer
from fastworker.tasks import new_task_id
from fastworker.ties import NO_RULES
from fastworker.upstream import encode_call
from fastworker.validate import validated
from fastworker.views import ScheduleView

if TYPE_CHECKING:
    from fastworker.client import Client
    from fastworker.function import AnyTaskFunction


Added = Literal["added", "changed", "unchanged"]


class ScheduleCalls:
    """The part of `Client` for schedules."""

    @abstractmethod
    async def _ask(self, request: Any) -> Any: ...

    async def schedules(
        self, *, name: str | None = None, limit: int = 100, after: str | None = None
    ) -> Sequence[ScheduleView]:
        """Schedules in the order of their names.

        Args:
            name: only the one of this name.
            limit: at most so many, 100 at the most.
            after: only those that come after this name, for the next page.
        """
        return validated(
            list[ScheduleView], await self._ask(Query(0, "schedules", name=name, limit=limit, after=after))
        )

    async def add_schedule(
        self,
        name: str,
        task: str | AnyTaskFunction,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **said: Unpack[RunOptions],
    ) -> Added:
        """Add a schedule, or put it in the place of one of the same name; returns once it is stored.

        Args:
            name: the schedule's name.
            task: the task function or its name. If no worker knows it, the runs wait for one that does.
            args: positional arguments of each run.
            kwargs: keyword arguments of each run.
            said: when it is due: `every` or `cron`, and the rest of `Timing`; and options of each run, see `Options`.

        Returns:
            `added`, `changed`, or `unchanged` if it was there already.

        Raises:
            ConfigurationError: names what is wrong, and what it may be.
            InvalidArguments: the arguments don't fit the task function, or its key function raised.
            ScheduleError: a schedule of this name is in the code of a worker.
            TooManySchedules: there are 100,000.
        """
        answer: Added = await self._ask(Schedules(0, "add", name, _schedule(name, task, args, kwargs or {}, said)))
        return answer

    async def pause_schedule(self, name: str) -> None:
        """Let a schedule rest until `resume_schedule`; a run that is under way goes on.

        Raises:
            ScheduleNotFound: there is no such schedule.
        """
        await self._order(Schedules(0, "pause", name))

    async def resume_schedule(self, name: str) -> None:
        """Undo `pause_schedule`: what was due meanwhile is skipped.

        Raises:
            ScheduleNotFound: there is no such schedule.
        """
        await self._order(Schedules(0, "resume", name))

    async def run_schedule(self, name: str) -> str:
        """Run the task of a schedule once, now, whatever its times and policies say.

        Returns:
            The id of the task.

        Raises:
            ScheduleNotFound: there is no such schedule.
        """
        task_id = new_task_id()
        await self._order(Schedules(0, "run", name, task=task_id))
        return task_id

    async def remove_schedule(self, name: str) -> None:
        """Forget a schedule; its tasks stay.

        Raises:
            ScheduleNotFound: there is no such schedule.
            ScheduleError: it is in the code of a worker: delete it there, or pause it.
        """
        await self._order(Schedules(0, "remove", name))

    async def _order(self, order: Schedules) -> None:
        if not await self._ask(order):
            raise ScheduleNotFound(f"there is no schedule {order.name!r}; there are those of `fastworker schedules`")


def _schedule(
    name: str, task: str | AnyTaskFunction, args: Sequence[Any], kwargs: Mapping[str, Any], said: RunOptions
) -> Schedule:
    owner = f"schedule {name}"
    check_names(owner, said, RunOptions.__annotations__)
    how, when = split_options(said)
    timing = make_timing(owner, **when)
    options, rules = make_options(owner, **how)
    if replace(rules, key=None, fair_key=None) != NO_RULES:
        raise ConfigurationError(f"{owner}: uniqueness is not for schedules: use overlap")
    if isinstance(task, str):
        payload, keys = encode_untyped(args, kwargs, task), rules.keys(task, args, kwargs)
        return Schedule(name, task, timing, _sealed(task, payload), options, *keys)
    payload, _ = encode_call(task.signature, args, kwargs)
    keys = rules.over(task.rules).keys(task.name, args, kwargs)
    return Schedule(name, task.name, timing, _sealed(task.name, payload), options.over(task.said), *keys)


def _sealed(name: str, payload: str) -> str:
    sealing = sealer()
    return payload if sealing is None else sealing.seal_for_schedule(name, payload)


class BlockingScheduleCalls:
    """The part of `BlockingClient` for schedules. Every method is the one of `Client`, waited for."""

    @abstractmethod
    def _do[T](self, call: Callable[[Client], Awaitable[T]]) -> T: ...

    def schedules(
        self, *, name: str | None = None, limit: int = 100, after: str | None = None
    ) -> Sequence[ScheduleView]:
        """Schedules in the order of their names."""
        return self._do(lambda client: client.schedules(name=name, limit=limit, after=after))

    def add_schedule(
        self,
        name: str,
        task: str | AnyTaskFunction,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **said: Unpack[RunOptions],
    ) -> Added:
        """Add a schedule, or put it in the place of one of the same name."""
        return self._do(lambda client: client.add_schedule(name, task, args, kwargs, **said))

    def pause_schedule(self, name: str) -> None:
        """Let a schedule rest."""
        self._do(lambda client: client.pause_schedule(name))

    def resume_schedule(self, name: str) -> None:
        """Undo `pause_schedule`."""
        self._do(lambda client: client.resume_schedule(name))

    def run_schedule(self, name: str) -> str:
        """Run the task of a schedule once, now; returns the id of the task."""
        return self._do(lambda client: client.run_schedule(name))

    def remove_schedule(self, name: str) -> None:
        """Forget a schedule."""
        self._do(lambda client: client.remove_schedule(name))
