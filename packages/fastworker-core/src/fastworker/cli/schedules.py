"""`fastworker schedules`, and `fastworker schedule add|pause|resume|run|remove`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from fastworker.cli.output import AsJson, Url, connect, moment, print_json, print_table, say
from fastworker.cli.submit import parse_arguments
from fastworker.views import Firing, ScheduleView

schedule = typer.Typer(help="Change schedules.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The schedule's name.")]


def schedules(
    name: Annotated[str | None, typer.Argument(help="Only this one, with its history.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 100,
    after: Annotated[str | None, typer.Option(help="Only those that come after this name: the next page.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the schedules: when they run, and what became of their last runs."""
    with connect(url) as client:
        views = client.schedules(name=name, limit=limit, after=after)
    if as_json:
        print_json(views)
        return
    columns = ("name", "task", "state", "from", "when", "next", "runs", "last")
    empty = "no schedules. Make one: @task(every=60), or fastworker schedule add NAME TASK --every 60"
    print_table(columns, map(_row, views), empty)
    if name is not None:
        _print_history(views)


def _row(view: ScheduleView) -> Sequence[object]:
    name, task = view.schedule.name, view.schedule.task
    return name, task, view.state, view.source, view.words, _next(view), view.fired, _last(view)


def _print_history(views: Iterable[ScheduleView]) -> None:
    rows = [
        (moment(firing.due), moment(firing.until), firing.task or "skipped", firing.why)
        for view in views
        for firing in view.history
    ]
    print_table(("due", "until", "task", "why"), rows, "it has not been due yet")


def _next(view: ScheduleView) -> str:
    """Its next run, as the clock shows it where the schedule lives."""
    if not view.next:
        return ""
    there = datetime.fromtimestamp(view.next[0], ZoneInfo(view.schedule.timing.tz))
    return there.strftime("%Y-%m-%d %H:%M:%S %Z")


def _last(view: ScheduleView) -> str:
    if not view.known:
        return "no connected worker knows the task"
    firing: Firing | None = view.history[0] if view.history else None
    if firing is None:
        return ""
    return firing.task or f"skipped: {firing.why}"


@schedule.command("add")
def add(
    name: Name,
    task: Annotated[str, typer.Argument(help="The task name.")],
    every: Annotated[float | None, typer.Option(help="Seconds from one run to the next.")] = None,
    cron: Annotated[str | None, typer.Option(help="E.g. '0 9 * * 1-5'; six fields begin with the second.")] = None,
    tz: Annotated[str, typer.Option(help="The time zone, e.g. Europe/Berlin.")] = "UTC",
    args: Annotated[str, typer.Option(help="JSON: an object is keywords, an array positions.")] = "[]",
    start: Annotated[str | None, typer.Option(help="No run before this moment.")] = None,
    end: Annotated[str | None, typer.Option(help="No run after this moment.")] = None,
    count: Annotated[int | None, typer.Option(help="At most so many runs.")] = None,
    misfire: Annotated[str | None, typer.Option(help="Missed runs: skip, once (default) or all.")] = None,
    overlap: Annotated[
        str | None, typer.Option(help="While the last run goes on: skip (default), allow, queue or cancel_running.")
    ] = None,
    priority: Annotated[str | None, typer.Option(help="critical, high, normal or low.")] = None,
    queue: Annotated[str | None, typer.Option(help="The queue.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Add a schedule, or put it in the place of one of the same name."""
    positions, keywords = parse_arguments(args)
    said: dict[str, Any] = {
        "every": every, "cron": cron, "tz": tz, "start": start, "end": end, "count": count, "misfire": misfire,
        "overlap": overlap, "priority": priority, "queue": queue,
    }  # fmt: skip
    with connect(url) as client:
        answer = client.add_schedule(name, task, positions, keywords, **said)
        view = client.schedules(name=name)[0]
    if as_json:
        print_json({"name": name, "answer": answer, "next": view.next})
    else:
        say(f"{answer}: {view.words}; next: {_next(view) or 'never'}")


@schedule.command("pause")
def pause(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Let a schedule rest; a run that is under way goes on."""
    with connect(url) as client:
        client.pause_schedule(name)
    _say(as_json, {"name": name, "answer": "paused"}, f"paused: {name}. To go on: fastworker schedule resume {name}")


@schedule.command("resume")
def resume(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Undo `pause`: what was due meanwhile is skipped."""
    with connect(url) as client:
        client.resume_schedule(name)
    _say(as_json, {"name": name, "answer": "resumed"}, f"resumed: {name}")


@schedule.command("run")
def run(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Run its task once, now, and print the id."""
    with connect(url) as client:
        task_id = client.run_schedule(name)
    _say(as_json, {"name": name, "task": task_id}, task_id)


@schedule.command("remove")
def remove(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Forget a schedule; its tasks stay."""
    with connect(url) as client:
        client.remove_schedule(name)
    _say(as_json, {"name": name, "answer": "removed"}, f"removed: {name}")


def _say(as_json: bool, data: dict[str, str], words: str) -> None:
    if as_json:
        print_json(data)
    else:
        say(words)
