"""Workflows: calls that are put together, and submitted in one request, all or nothing.

All of them come down to one thing: a task that has handles among its arguments waits for these tasks, and gets their
results. `chain` passes a result on as the first argument of the next call, `group` runs calls side by side, and a call
after a group gets the list of its results.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast, overload

from fastworker.codec import Signature
from fastworker.current import on_current_client
from fastworker.errors import ConfigurationError
from fastworker.handle import TaskHandle
from fastworker.portal import wait_for
from fastworker.protocol import Submission
from fastworker.tasks import NO_TIES, new_task_id

if TYPE_CHECKING:
    from fastworker.function import TaskFunction

NOTHING: Final[Any] = object()
"""In place of the result of a step before the first."""


class Plan:
    """The tasks of a workflow that is being put together, in an order in which each needs only earlier ones."""

    def __init__(self) -> None:
        self.workflow = new_task_id()
        self.submissions: list[Submission] = []
        self.signatures: list[Signature] = []

    def add(self, submission: Submission, signature: Signature) -> TaskHandle[Any]:
        """One more task; a handle that can only be an argument."""
        ties = submission.ties or NO_TIES
        submission.ties = replace(ties, workflow=self.workflow)
        self.submissions.append(submission)
        self.signatures.append(signature)
        return TaskHandle(submission.id)


class Step[R]:
    """A part of a workflow. `R` is its result. `a | b` is `chain(a, b)`."""

    @abstractmethod
    def build(self, plan: Plan, before: Any) -> Any:
        """Add the tasks of this step to the plan.

        Args:
            before: handles whose results go into this step, or `NOTHING`.

        Returns:
            The handle of its result, or a list of them for a group.
        """

    def __or__[T](self, other: Step[T]) -> Chain[T]:
        return chain(self, other)

    async def submit(self) -> Any:
        """Queue all tasks in one request; returns once they are stored.

        Returns:
            The handle of the last task; a `GroupHandle` if the last step is a group.

        Raises:
            InvalidArguments: the arguments of a call don't fit its signature.
            PayloadTooLarge: the whole does not fit in one request.
        """
        plan = Plan()
        output = self.build(plan, NOTHING)
        if not plan.submissions:
            return GroupHandle()
        handles = await on_current_client(
            lambda client: client.submit_functions(plan.signatures, plan.submissions, whole=True)
        )
        by_id = {submission.id: handle for submission, handle in zip(plan.submissions, handles, strict=True)}
        return _bound(output, by_id)

    def submit_sync(self) -> Any:
        """`submit` for blocking code."""
        return wait_for(self.submit())


class Call[R](Step[R]):
    """One call of a task function: `add.s(1)`."""

    def __init__(
        self,
        function: TaskFunction[..., Any, R],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        takes_result: bool = True,
    ) -> None:
        self._function = function
        self.args = tuple(args)
        self.kwargs = dict(kwargs)
        self.takes_result = takes_result

    def build(self, plan: Plan, before: Any) -> TaskHandle[R]:
        """See `Step.build`."""
        first = self.takes_result and before is not NOTHING
        submission = self._function.submission((before, *self.args) if first else self.args, self.kwargs)
        if not first and before is not NOTHING:
            ties = submission.ties or NO_TIES
            submission.ties = replace(ties, needs=tuple(dict.fromkeys((*ties.needs, *_ids(before)))))
        return plan.add(submission, self._function.signature)

    async def submit(self) -> TaskHandle[R]:
        """Queue it."""
        return cast("TaskHandle[R]", await super().submit())

    def submit_sync(self) -> TaskHandle[R]:
        """`submit` for blocking code."""
        return wait_for(self.submit())

    def __repr__(self) -> str:
        return f"<call of {self._function.name}>"


class Chain[R](Step[R]):
    """Steps one after the other; each gets the result of the one before it as its first argument."""

    def __init__(self, steps: Iterable[Step[Any]]) -> None:
        self.steps: list[Step[Any]] = [
            part for step in steps for part in (step.steps if isinstance(step, Chain) else [step])
        ]

    def build(self, plan: Plan, before: Any) -> Any:
        """See `Step.build`."""
        for step in self.steps:
            before = step.build(plan, before)
        return before


class Group[R](Step[list[R]]):
    """Steps side by side; the result is the list of their results."""

    def __init__(self, steps: Iterable[Step[R]]) -> None:
        self.steps = list(steps)

    def build(self, plan: Plan, before: Any) -> list[Any]:
        """See `Step.build`."""
        return [step.build(plan, before) for step in self.steps]

    def then[T](self, step: Step[T]) -> Chain[T]:
        """What is to be done with the list of results."""
        return chain(self, step)

    async def submit(self) -> GroupHandle[R]:
        """Queue all of them."""
        return cast("GroupHandle[R]", await super().submit())

    def submit_sync(self) -> GroupHandle[R]:
        """`submit` for blocking code."""
        return wait_for(self.submit())


class GroupHandle[R](list[Any]):
    """The handles of a group, in its order. Awaiting it gives the list of results."""

    async def result(self, timeout: float | None = None) -> list[R]:
        """Wait for all; raises what `TaskHandle.result` raises for the first that did not succeed.

        Args:
            timeout: seconds to wait for each.
        """
        return list(await asyncio.gather(*(handle.result(timeout) for handle in self)))

    def __await__(self) -> Generator[Any, Any, list[R]]:
        return self.result().__await__()

    def result_sync(self, timeout: float | None = None) -> list[R]:
        """`result` for blocking code."""
        return wait_for(self.result(timeout))

    async def cancel_workflow(self) -> int:
        """Cancel all open tasks of the workflow; how many they were."""
        return await self[0].cancel_workflow() if self else 0


@overload
def chain[R](*steps: *tuple[*tuple[Step[Any], ...], Step[R]]) -> Chain[R]: ...
@overload
def chain(*steps: Step[Any]) -> Chain[Any]: ...
def chain(*steps: Any) -> Chain[Any]:  # type: ignore[misc]  # mypy does not see that it takes any tuple
    """Steps one after the other: `chain(fetch.s(url), parse.s(), store.s("table"))`.

    Raises:
        ConfigurationError: there is no step, or something else than a step.
    """
    if not steps:
        raise ConfigurationError("a chain needs at least one step: chain(first.s(1), second.s())")
    return Chain(_checked(steps))


def group[R](steps: Iterable[Step[R]]) -> Group[R]:
    """Steps side by side: `group([fetch.s(url) for url in urls]).then(merge.s())`.

    Raises:
        ConfigurationError: there is something else than a step.
    """
    return Group(_checked(steps))


def _checked[R](steps: Iterable[Step[R]]) -> list[Step[R]]:
    checked = list(steps)
    for step in checked:
        if not isinstance(step, Step):
            raise ConfigurationError(f"{step!r} is not a step of a workflow: write function.s(…), chain(…) or group(…)")
    return checked


def _ids(output: Any) -> list[str]:
    return [task_id for part in output for task_id in _ids(part)] if isinstance(output, list) else [output.id]


def _bound(output: Any, by_id: dict[str, TaskHandle[Any]]) -> Any:
    if isinstance(output, list):
        return GroupHandle(_bound(part, by_id) for part in output)
    return by_id[output.id]
