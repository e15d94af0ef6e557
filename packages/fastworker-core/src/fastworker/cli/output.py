"""What the command line prints: tables for people, JSON for programs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic_core import to_json

from fastworker.blocking import BlockingClient
from fastworker.log_records import log_to_standard_error
from fastworker.settings import LogKind, load_settings

if TYPE_CHECKING:
    from rich.console import Console

Url = Annotated[str | None, typer.Option(help="Where the control plane is.", metavar="URL")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]
LogFormat = Annotated[LogKind | None, typer.Option(help="text (default), or json: an object a line.")]

CONNECT_TIMEOUT = 2.0
"""Seconds; a person waits at the terminal."""

LONGEST_CELL: Final = 60
"""Characters, before a cell of a table goes on in the next line."""
WIDEST: Final = 2000
"""A table is as wide as it needs, also in a narrow terminal or in a pipe: a row is a line to be searched and copied."""


@cache
def console(width: int | None = None) -> Console:
    """Where tables and progress bars go; as wide as the terminal, if nothing else is said."""
    from rich.console import Console  # only where there is a table: it takes long to import

    return Console(highlight=False, soft_wrap=True, emoji=False, width=width)


def say(text: str, *, bold: bool = False, colour: str | None = None) -> None:
    """A line for a person."""
    typer.secho(text, bold=bold, fg=colour)


def connect(url: str | None) -> BlockingClient:
    """A client for one command."""
    return BlockingClient(url, connect_timeout=CONNECT_TIMEOUT)


def announce(text: str, *, bold: bool = False, colour: str | None = None) -> None:
    """A line for a person, beside the log."""
    typer.secho(text, bold=bold, fg=colour, err=True)


def complain(text: str) -> None:
    """Say what went wrong."""
    typer.secho("error:", bold=True, fg="red", nl=False, err=True)
    typer.echo(f" {text}", err=True)


def print_json(value: Any) -> None:
    """A value as JSON."""
    typer.echo(to_json(value, indent=2, fallback=str).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table, or one sentence if it would be empty."""
    lines = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not lines:
        say(empty)
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", max_width=LONGEST_CELL)
    for line in lines:
        table.add_row(*(cell.replace("[", r"\[") for cell in line))
    console(WIDEST).print(table)


def print_list[T](
    things: Sequence[T], as_json: bool, columns: Sequence[str], row: Callable[[T], Sequence[object]], empty: str
) -> None:
    """Things as JSON, or as a table with a row for each."""
    if as_json:
        print_json(things)
    else:
        print_table(columns, map(row, things), empty)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, those without a value left out."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, "", ()):
            table.add_row(name, str(value).replace("[", r"\["))
    console().print(table)


def moment(seconds: float | None) -> str | None:
    """A time as local date and time."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # no calendar reaches that far, but a delay may
        return f"{seconds:g}"


def set_up_logging(level: str, log_format: LogKind | None = None) -> None:
    """Log lines for a person at night, or for programs; without a word on it, as the setting `log_format` says."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise typer.BadParameter(f"{level!r}: use debug, info, warning or error")
    kind = load_settings(log_format=log_format).log_format
    log_to_standard_error(number, as_json=kind == "json")
