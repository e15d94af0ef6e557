"""Commands for limits, workflows and failures: limits, limit, workflow, failures, search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from fastworker.cli.inspect import TASK_COLUMNS, TaskId, task_row
from fastworker.cli.output import AsJson, Url, connect, moment, print_json, print_list, print_table, say
from fastworker.errors import ConfigurationError
from fastworker.found import FailureGroup
from fastworker.views import LimitsView, WorkflowNode


def limits(url: Url = None, as_json: AsJson = False) -> None:
    """List the task names with a rate or concurrency limit."""
    with connect(url) as client:
        views = client.limits()
    columns = ("name", "rates", "at once", "set by")
    print_list(views, as_json, columns, _limits_row, "nothing is limited. Limit it: fastworker limit NAME")


def _limits_row(view: LimitsView) -> Sequence[object]:
    rates = ", ".join(map(str, view.rates))
    return view.name, rates, view.max_concurrency, "run time" if view.set_by_client else "@task"


def limit(
    name: Annotated[str, typer.Argument(help="The task name.")],
    rate: Annotated[list[str] | None, typer.Option(help="e.g. 10/s or 100k/d; may be said several times.")] = None,
    max_concurrency: Annotated[int | None, typer.Option(help="How many may run at once.")] = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="No limits, whatever @task says.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="As @task says.")] = False,
    url: Url = None,
) -> None:
    """Set the limits of a task name, over all workers, at once."""
    if sum((bool(rate) or max_concurrency is not None, unlimited, reset)) != 1:
        raise ConfigurationError("say --rate or --max-concurrency (or both), or --unlimited, or --reset")
    with connect(url) as client:
        if reset:
            client.reset_limits(name)
        else:
            client.set_limits(name, rate_limit=rate or None, max_concurrency=max_concurrency)
    say(f"the limits of {name} are set: fastworker limits")


def workflow(task_id: TaskId, url: Url = None, as_json: AsJson = False) -> None:
    """List the tasks of the workflow that a task belongs to."""
    with connect(url) as client:
        nodes = client.workflow(task_id)
    numbers = {node.id: number for number, node in enumerate(nodes, 1)}

    def row(node: WorkflowNode) -> Sequence[object]:
        needs = " ".join(str(numbers.get(need, need)) for need in node.needs)
        return numbers[node.id], node.id, node.name, node.state, needs

    print_list(nodes, as_json, ("#", "id", "name", "state", "needs"), row, "it belongs to none")


def failures(url: Url = None, as_json: AsJson = False) -> None:
    """List failed tasks in groups of the same name, exception and place."""
    with connect(url) as client:
        groups = client.failures()
    columns = ("count", "name", "exception", "place", "latest")
    print_list(groups, as_json, columns, _failures_row, "nothing has failed")
    if groups and not as_json:
        say(f"try: fastworker bulk retry 'state:failed name:{groups[0].name}'")


def _failures_row(group: FailureGroup) -> Sequence[object]:
    return group.count, group.name, group.type, group.place, moment(group.latest_at)


def search(
    wanted: Annotated[str, typer.Argument(help="e.g. 'state:failed name:mail args:17 took>5 timed out'.")],
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 20,
    before: Annotated[int | None, typer.Option(help="Only tasks with a smaller number: the next page.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Find tasks by anything that is known of them, newest first."""
    with connect(url) as client:
        page = client.search(wanted, limit=limit, before=before)
    if as_json:
        print_json(page)
        return
    print_table(TASK_COLUMNS, map(task_row, page.tasks), "no task fits")
    if page.next is not None:
        say(f"the next page: --before {page.next}")
