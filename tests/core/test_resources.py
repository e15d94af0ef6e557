"""Resources without a worker: definitions, and what a direct call meets."""

from __future__ import annotations

import pytest

from fastworker import ConfigurationError, resource
from fastworker.codec import Signature
from fastworker.errors import TaskDefinitionError
from fastworker.resources import Resources, on_startup


class Pool:
    """A resource."""

    size = 1


class LargePool(Pool):
    """One that is a Pool too."""


def use(number: int, pool: Pool = resource()) -> int:
    return pool.size + number


def test_a_resource_is_not_submitted() -> None:
    signature = Signature(use, "use")
    assert signature.encode((3,), {}) == '{"number":3}'
    assert signature.resources == {"pool": Pool}


def test_a_direct_call_without_one_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="where you call the task function yourself, pass one"):
        use(1)


def test_a_startup_function_says_what_it_makes() -> None:
    def make():  # type: ignore[no-untyped-def]
        return Pool()

    with pytest.raises(TaskDefinitionError, match="annotate what it returns"):
        on_startup(make)


async def test_they_are_made_in_order_found_by_a_base_class_and_ended_in_reverse() -> None:
    resources = Resources()
    ended: list[str] = []

    def first() -> LargePool:
        return LargePool()

    async def second(pool: Pool) -> dict[str, Pool]:
        return {"pool": pool}

    resources.add_startup(first)
    resources.add_startup(second)
    resources.add_shutdown(lambda: ended.append("first"))
    await resources.start()
    assert isinstance(resources[Pool], LargePool)
    assert resources[dict[str, Pool]]["pool"] is resources[Pool]
    assert await resources.stop() == []
    assert ended == ["first"]
    with pytest.raises(ConfigurationError, match="there is no resource of type Pool; there are: none"):
        resources[Pool]
