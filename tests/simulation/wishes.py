"""What clients wish for: plain, limited, fair, unique and idempotent tasks, and graphs of tasks that need others."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any, get_args

from fastworker.protocol import Submission
from fastworker.tasks import (
    NO_TIES,
    PRIORITIES,
    Backoff,
    OnDuplicate,
    OnUpstreamFailure,
    Options,
    Ties,
    UniqueWhile,
    idempotent_id,
)
from fastworker.upstream import RESULT
from tests.simulation.plan import NAMES
from tests.simulation.processes import ClientProcess

QUEUES = ("default", "default", "mail")
KEYS = (None, "one", "two", "three")
TENANTS = ("ant", "bee", "cow")
LOCKS: dict[str, UniqueWhile | float] = {"door": "queued", "gate": "running", "hatch": "running", "window": 3.0}
ORDERS = tuple(f"order-{number}" for number in range(20))
"""Idempotency keys."""
GRAPH_NAMES = ("step",) * 8 + ("quick", "flaky", "keyed", "rated", "once")


def plain(process: ClientProcess, random: Random) -> Submission:
    """Any task. Those of a limited name may have a key, those of `fair` have a tenant."""
    name = random.choice(NAMES)
    options = _options(random, name) if random.random() < 0.8 else None
    return Submission(process.new_id(), name, f"[{process.ids}]", options, ties=_ties(random, name))


def _options(random: Random, name: str) -> Options:
    return Options(
        priority=random.choice((None, *PRIORITIES)),
        queue=random.choice(QUEUES) if name not in ("fair", "posted") else None,
        retries=random.choice((None, None, 0, 1, 3)) if name != "once" else None,
        backoff=random.choice((None, Backoff("constant", 0.5, 0.5, jitter=False), Backoff("linear", 0.2, 1.0))),
        delay=random.choice((None, None, None, None, random.uniform(0.01, 8.0))),
        expires=random.choice((None, None, None, random.uniform(0.01, 10.0))),
    )


def _ties(random: Random, name: str) -> Ties | None:
    match name:
        case "keyed" | "rated":
            key = random.choice(KEYS)
            return Ties(key=key) if key is not None else None
        case "fair":
            return Ties(fair_key=random.choice(TENANTS))
        case _:
            return None


def crowd(process: ClientProcess, random: Random) -> list[Submission]:
    """Many tasks of one tenant at once."""
    ties = Ties(fair_key=random.choice(TENANTS))
    return [Submission(process.new_id(), "fair", f"[{process.ids}]", ties=ties) for _ in range(random.randint(5, 30))]


def unique(process: ClientProcess, random: Random) -> Submission:
    """A task that wants a lock; delayed now and then, so that `replace` debounces."""
    lock = random.choice(list(LOCKS))
    policy = random.choice(get_args(OnDuplicate))
    task = plain(process, random)
    task.ties = replace(task.ties or NO_TIES, unique=lock, unique_while=LOCKS[lock], on_duplicate=policy)
    return task


def idempotent(process: ClientProcess, random: Random) -> Submission:
    """A task that others submit, too, with other arguments."""
    key = random.choice(ORDERS)
    process.ids += 1
    return Submission(idempotent_id("quick", key), "quick", f'["{process.name}",{process.ids}]', again=True)


def dependent(process: ClientProcess, random: Random, known: list[str]) -> Submission:
    """A task that needs some that were accepted before, whatever has become of them."""
    needs = random.sample(known, min(len(known), random.randint(1, 3)))
    return _node(process, random, needs, None)


def graph(process: ClientProcess, random: Random) -> list[Submission]:
    """Chains, groups and joins, nested, in an order in which each task needs only earlier ones."""
    drawing = _Drawing(process, random)
    ends = drawing.grow(random.randint(1, 2), [])
    if len(ends) > 1 and random.random() < 0.7:
        drawing.node(ends)
    return drawing.nodes


class _Drawing:
    """A graph that is being drawn."""

    def __init__(self, process: ClientProcess, random: Random) -> None:
        self._process = process
        self._random = random
        self._workflow = process.new_id()
        self.nodes: list[Submission] = []

    def grow(self, depth: int, before: list[str]) -> list[str]:
        """Add a part behind these tasks; the ids of its last tasks."""
        match self._random.choice(("one", "chain", "group")) if depth else "one":
            case "chain":
                for _ in range(self._random.randint(2, 4)):
                    before = self.grow(depth - 1, before)
                return before
            case "group":
                return [end for _ in range(self._random.randint(2, 4)) for end in self.grow(depth - 1, before)]
            case _:
                return [self.node(before)]

    def node(self, needs: list[str]) -> str:
        """Add one task."""
        self.nodes.append(_node(self._process, self._random, needs, self._workflow))
        return self.nodes[-1].id


def _node(process: ClientProcess, random: Random, needs: list[str], workflow: str | None) -> Submission:
    name = random.choice(GRAPH_NAMES)
    ties = Ties(
        key=random.choice(KEYS) if name in ("keyed", "rated") else None,
        needs=tuple(needs),
        on_upstream_failure=random.choice(get_args(OnUpstreamFailure)),
        workflow=workflow,
    )
    options = _options(random, name) if random.random() < 0.2 else None
    task_id = process.new_id()
    return Submission(task_id, name, json.dumps([process.ids, *_arguments(random, needs)]), options, ties=ties)


def _arguments(random: Random, needs: list[str]) -> list[Any]:
    """The results of these tasks as arguments: each alone, in a list, in an object, or not at all."""
    places = [{RESULT: need} for need in needs]
    match random.randrange(4):
        case 0:
            return places
        case 1:
            return [["first", *places]]
        case 2:
            return [{f"key{number}": place for number, place in enumerate(places)}, "last"]
        case _:
            return []
