"""`fastworker bulk`: one action on all tasks that fit a search, in the background, with its progress."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer

from fastworker.activity import BulkAction, BulkView
from fastworker.blocking import BlockingClient
from fastworker.cli.control import read_priority
from fastworker.cli.exits import TASK_FAILED
from fastworker.cli.output import AsJson, Url, connect, console, print_json, say
from fastworker.tasks import Priority

app = typer.Typer(help="Do one thing to all tasks that fit a search.", no_args_is_help=True)

Search = Annotated[str, typer.Argument(help="As in `fastworker search`, e.g. 'state:failed name:resize'.")]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask.")]
POLL_SECONDS: Final = 0.1


@app.command()
def retry(search: Search, yes: Yes = False, url: Url = None, as_json: AsJson = False) -> None:
    """Run ended tasks again."""
    _do("retry", search, yes, url, as_json)


@app.command()
def cancel(search: Search, yes: Yes = False, url: Url = None, as_json: AsJson = False) -> None:
    """Cancel open tasks."""
    _do("cancel", search, yes, url, as_json)


@app.command()
def delete(search: Search, yes: Yes = False, url: Url = None, as_json: AsJson = False) -> None:
    """Delete ended tasks with their results."""
    _do("delete", search, yes, url, as_json)


@app.command()
def priority(
    search: Search,
    priority: Annotated[str, typer.Argument(help="critical, high, normal or low.")],
    yes: Yes = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Give open tasks another priority."""
    _do("reprioritise", search, yes, url, as_json, read_priority(priority))


def purge(
    queue: Annotated[str, typer.Argument(help="The queue.")],
    yes: Yes = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Cancel all tasks that wait in a queue."""
    _do("cancel", f'state:queued queue:"{queue}"', yes, url, as_json)


def _do(
    action: BulkAction, search: str, yes: bool, url: str | None, as_json: bool, priority: Priority | None = None
) -> None:
    with connect(url) as client:
        if not yes:
            found = client.facets(search)
            about = f"{'' if found.exact else 'at least '}{found.total}"
            typer.confirm(f"{action} what fits of the {about} tasks that match?", abort=True, err=True)
        job = _wait(client, client.start_bulk(action, search, priority=priority))
    if as_json:
        print_json(job)
    else:
        say(f"{job.state}: {job.done} tasks")
    if job.state != "done":
        raise typer.Exit(TASK_FAILED)


def _wait(client: BlockingClient, job_id: str) -> BulkView:
    """Follow a job to its end."""
    from rich.progress import Progress  # only here: it takes a tenth of a second to import

    with Progress(console=console(), transient=True) as progress:
        bar = progress.add_task("working", total=None)
        while True:
            job = next(job for job in client.bulk_jobs() if job.id == job_id)
            progress.update(bar, total=job.total, completed=job.done)
            if job.state != "running":
                return job
            time.sleep(POLL_SECONDS)
