"""`fastworker submit`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from fastworker.cli.output import AsJson, Url, connect, print_json
from fastworker.cli.waiting import await_result
from fastworker.errors import ConfigurationError
from fastworker.options import SubmitOptions


def submit(
    name: Annotated[str, typer.Argument(help="The task name.")],
    args: Annotated[str, typer.Option(help="JSON: an object is keywords, an array positions.")] = "[]",
    priority: Annotated[str | None, typer.Option(help="critical, high, normal or low.")] = None,
    queue: Annotated[str | None, typer.Option(help="The queue.")] = None,
    delay: Annotated[float | None, typer.Option(help="Seconds before it may start.")] = None,
    expires: Annotated[float | None, typer.Option(help="Seconds after which it must not start any more.")] = None,
    retries: Annotated[int | None, typer.Option(help="How often a failure is tried again.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that one attempt may run.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait, and print the result; else print the id.")] = True,
    wait_for: Annotated[float | None, typer.Option(help="Wait no longer than these seconds.")] = None,
    strict: Annotated[bool, typer.Option(help="Refuse a name that no worker knows.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Submit a task by its name."""
    positions, keywords = parse_arguments(args)
    said = _said(priority=priority, queue=queue, delay=delay, expires=expires, retries=retries, timeout=timeout)
    with connect(url) as client:
        task_id = client.submit(name, positions, keywords, strict=strict, **said)
        if not wait:
            print_json({"id": str(task_id)}) if as_json else typer.echo(task_id)
            return
        value = await_result(client, task_id, wait_for)
    print_json({"id": str(task_id), "result": value} if as_json else value)


def parse_arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Positions and keywords of `--args`.

    Raises:
        ConfigurationError: it is not a JSON array or object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        hint = "write e.g. --args '[1, \"a\"]' or --args '{\"user_id\": 1}'"
        raise ConfigurationError(f"--args {text!r} is not JSON ({error}): {hint}") from None
    match value:
        case list():
            return value, {}
        case dict():
            return [], value
        case _:
            raise ConfigurationError(f"--args {text!r}: use an array (positions) or an object (keywords)")


def _said(**options: Any) -> SubmitOptions:
    return {name: value for name, value in options.items() if value is not None}  # type: ignore[return-value]
